"""Memory is refused: the n-th allocation of a daemon fails, or its RLIMIT_DATA is reached. It answers 4xx, or dies and is
started again; nothing that was acknowledged is lost."""
import os
import re
import time

import pytest

import faults
from faults import Traffic
from instance import SLOW
from preload import Allocator
from test_commit_faults import KINDS, finish, relaying  # noqa: F401 (a fixture)
from sink import NextHop
from test_queue import relay_to

pytestmark = [*faults.NEEDS, pytest.mark.skipif(SLOW != 1, reason="a sanitizer has an allocator of its own")]
ROLES = ("qmgr", "smtpd", "local", "smtp-client", "maps", "bounce", "log")


@pytest.fixture
def failing(make_instance, tmp_path):
    allocator = Allocator(tmp_path)
    i = make_instance(start=False, direct=False, allow_deaths=True)
    i.set(**{**relay_to(i), "daemon_directory": allocator.programs(*ROLES), "minimal_backoff_time": "1h", "service_throttle_time": "100ms",
             "smtpd_client_connection_count_limit": "0", "default_destination_concurrency_failed_cohort_limit": "1000"})
    sink = NextHop(i.port["sink"])
    sink.answers["later@out.test"] = "450 4.2.0 not now"
    i.start()
    yield i, allocator, Traffic(i, sink, KINDS)
    sink.close()


def test_the_nth_allocation_fails(failing):
    i, allocator, traffic = failing
    for kind in KINDS:
        traffic.until_taken(kind)
    counts = [{role: allocator.count(role) for role in ROLES}]
    for _ in range(3):
        traffic.burst()
        counts.append({role: allocator.count(role) for role in ROLES})
    # What comes with each burst; what is allocated now and then cannot be waited for.
    each = {role: min(b[role] - a[role] for a, b in zip(counts, counts[1:])) for role in ROLES}
    assert each["qmgr"] > 20 and each["smtpd"] > 20, each
    tried = 0
    for role in ROLES:
        if not each[role]:
            continue
        for n in range(1, each[role] + 1, 1 if faults.LONG else max(1, each[role] // 2)):
            allocator.arm(role, n)
            end = time.monotonic() + 30  # the process may still be starting after the last failure
            while allocator.left(role) and time.monotonic() < end:
                traffic.burst()
            assert not allocator.left(role), f"{role} made no {n} allocations"
            tried += 1
            traffic.until_taken("small")
    assert not traffic.codes.keys() - {250, 451, 452, 421, 0}, traffic.codes
    for role in ROLES:
        allocator.arm(role, 0)
    i.wait_ready(60)
    again = finish(traffic)
    assert re.search(r"service-died .*service=qmgr ", i.log()), "qmgr did not even notice"
    print(f"allocations={each} refused={tried} codes={dict(traffic.codes)} acknowledged={len(traffic.acked)} of {len(traffic.sent)}, "
          f"second copies: {again}")


LIMITED = ("qmgr", "maps", "local", "smtp-client", "bounce", "dns", "pickup", "log", "smtpd")


def test_the_limit_is_reached(relaying):  # noqa: F811
    """RLIMIT_DATA of a running daemon is less than what it has: whatever it wants more is refused."""
    i, traffic = relaying(default_destination_concurrency_failed_cohort_limit="1000")
    traffic.kinds = {**KINDS, "fat": ("u1@example.test", 15000), "far": ("a@out.test", 15000)}
    for role in LIMITED:
        limited = i.pids(role)
        assert limited, role
        traffic.codes.clear()
        for pid in limited:
            faults.limit(pid, data=4096)
        for _ in range(10 if faults.LONG else 2):
            traffic.burst(*["fat"] * 20, *["far"] * 20, "large", "out-large")
        for pid in limited:  # those that came by with what they had
            if os.path.exists(f"/proc/{pid}"):
                faults.limit(pid, data="unlimited")
        print(role, dict(traffic.codes))
        # Only the process that speaks with the client may leave it without a word.
        assert not traffic.codes.keys() - {250, 451, 452, *((0, 421) if role == "smtpd" else ())}, (role, traffic.codes, traffic.broken)
        i.wait_ready(60)
        traffic.until_taken("small")
    died = re.findall(r"service-died .*service=(\S+)", i.log())
    assert died, "no limit was reached"
    print(f"died={died} acknowledged={len(traffic.acked)} of {len(traffic.sent)}, second copies: {finish(traffic)}")
