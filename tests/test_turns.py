"""Turns of DATA: while a process has commit_turn_limit commits under way, the next 354 waits, and not for long."""
import select
import threading
import time

import pytest

from instance import SLOW
from sink import Sink
from test_smtp import EHLO, TEXT, Wire


class Gate:
    """A next hop that answers no final dot before it is opened."""

    def __init__(self, port):
        self.opened = threading.Event()
        self.sink = Sink(port, replies={"END": self.end})

    def end(self, _):
        self.opened.wait(60 * SLOW)

    def close(self):
        self.opened.set()
        self.sink.close()


@pytest.fixture
def gate(make_instance, request):
    """(instance, its next hop)."""
    i = make_instance(start=False, main={"direct_delivery_deadline": "10s", "initial_destination_concurrency": "20", **request.param})
    i.set(relayhost=f"[127.0.0.1]:{i.port['sink']}")
    g = Gate(i.port["sink"])
    i.start()
    yield i, g
    g.close()


def at_data(i):
    w = Wire(i.port["smtp"])
    w.say(EHLO)
    assert w.code(b"MAIL FROM:<a@client.example>\r\n") == 250
    assert w.code(b"RCPT TO:<far@far.test>\r\n") == 250
    return w


def commit(i, gate):
    """A session whose message is at the next hop, which does not answer."""
    had = len(gate.sink.commands)
    w = at_data(i)
    assert w.code(b"DATA\r\n") == 354
    w.send(TEXT.replace(b"\r\n.", b"\r\n..") + b".\r\n")
    end = time.monotonic() + 20 * SLOW
    while "DATA" not in gate.sink.commands[had:]:
        assert time.monotonic() < end, gate.sink.commands
        time.sleep(0.01)
    return w


def silent(w, seconds=0.3):
    return not select.select([w.sock], [], [], seconds)[0]


@pytest.mark.parametrize("gate", [{"commit_turn_limit": "2", "commit_turn_time": "10s"}], indirect=True)
def test_data_waits_for_the_commits_of_others(gate):
    """At the limit and one past it; who waits is answered as soon as half of the commits are over; nobody is passed over."""
    i, next_hop = gate
    first, second = commit(i, next_hop), None
    w = at_data(i)
    assert w.code(b"DATA\r\n") == 354  # one commit is under way, two may be
    w.close()
    second = commit(i, next_hop)
    waiting = [at_data(i) for _ in range(3)]
    for w in waiting:
        w.send(b"DATA\r\n")
    assert all(silent(w, 0.1) for w in waiting)
    waiting.pop(0).close()  # leaves the line
    next_hop.opened.set()
    for w in (first, second):
        assert w.reply().startswith(b"250 ")
    for w in waiting:
        assert w.reply().startswith(b"354 ")
        assert w.code(b"Subject: x\r\n\r\nx\r\n.\r\n") == 250


@pytest.mark.parametrize("gate", [{"commit_turn_limit": "1", "commit_turn_time": "200ms"}], indirect=True)
def test_a_turn_comes_by_itself(gate):
    """The commit of another may take as long as it likes."""
    i, next_hop = gate
    first, w = commit(i, next_hop), at_data(i)
    began = time.monotonic()
    assert w.code(b"DATA\r\n") == 354
    assert time.monotonic() - began >= 0.15
    assert silent(first, 0)
    next_hop.opened.set()
    assert first.reply().startswith(b"250 ")
    assert w.code(b"Subject: x\r\n\r\nx\r\n.\r\n") == 250


@pytest.mark.parametrize("gate", [{"commit_turn_limit": "0", "commit_turn_time": "10s"}], indirect=True)
def test_no_limit(gate):
    i, next_hop = gate
    under_way = [commit(i, next_hop) for _ in range(12)]
    w = at_data(i)
    assert w.code(b"DATA\r\n") == 354
    next_hop.opened.set()
    for s in under_way:
        assert s.reply().startswith(b"250 ")


@pytest.mark.parametrize("gate", [{"commit_turn_limit": "1", "commit_turn_time": "10s"}], indirect=True)
def test_a_graceful_stop_while_data_waits(gate):
    """Who waits at DATA has a transaction, which is not cut."""
    i, next_hop = gate
    first, waiting = commit(i, next_hop), at_data(i)
    waiting.send(b"DATA\r\n")
    assert silent(waiting, 0.1)
    i.tool("reload")
    next_hop.opened.set()
    assert first.reply().startswith(b"250 ")
    assert waiting.reply().startswith(b"354 ")
    assert waiting.code(b"Subject: x\r\n\r\nx\r\n.\r\n") == 250
