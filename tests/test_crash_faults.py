"""kill -9 of everything at once, at random under load: what a crash of the machine does to processes, again and again.

Nothing that was acknowledged is lost, nothing is half, nothing is in a mailbox twice (the derived name tells); the next hop,
which knows no such names, may get again what was under way: counted. BULKHEAD_LONG=1 kills more often.
"""
import collections
import os
import random
import time

import pytest

from instance import wait
from load import body_of, digest, load, offered, replies
from test_queue import both_ways, explain, wait_empty, with_sink  # noqa: F401  (a fixture)

KILLS = 40 if os.environ.get("BULKHEAD_LONG") == "1" else 4
JOBS = 20  # at once to the next hop (default_destination_concurrency_limit)


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "queued"])
def test_all_killed_under_load(with_sink, direct):  # noqa: F811
    i, sink = with_sink(direct=direct, allow_deaths=True, main={"minimal_backoff_time": "1s", "maximal_backoff_time": "2s",
                                                                "smtpd_client_connection_count_limit": "0"})
    chance = random.Random(direct)
    with load(i, 6, both_ways) as clients:
        for _ in range(KILLS):
            more = len(replies(clients)) + chance.randint(1, 60)
            wait(lambda: len(replies(clients)) >= more, 60, "answers")
            time.sleep(chance.random() / 20)
            i.kill()
            i.start()
    told = replies(clients)
    wait_empty(i, 60)
    stored = collections.Counter(digest(body_of(m)) for m in i.messages("u1@example.test"))
    relayed = collections.Counter(digest(body_of(m.content)) for m in sink.messages)
    lost = {k: ("", told[k]) for k in set(told) - set(stored) - set(relayed)}
    assert not lost, f"{len(lost)} of {len(told)} lost\n" + explain(i, sink, lost)
    half = (set(stored) | set(relayed)) - offered(clients)
    assert not half, f"{len(half)} messages that nobody sent"
    twice = [k for k, n in stored.items() if n > 1]
    assert not twice, f"{len(twice)} messages are in the mailbox twice"
    again = sum(n - 1 for n in relayed.values())
    print(f"points={KILLS} acknowledged={len(told)} of {len(offered(clients))}, relayed twice: {again}")
    assert again <= KILLS * JOBS
