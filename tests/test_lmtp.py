"""The LMTP server: after the dot one reply for each recipient (RFC 2033), of what is known then; and nobody is told twice."""
import re
import time

import pytest

from instance import SLOW
from sink import Sink
from test_smtp import Wire

BAD = "550 5.2.2 mailbox full"
LATER = "450 4.2.0 greylisted"


def answers(argument):
    address = argument.partition("<")[2].partition(">")[0]
    return {"bad": BAD, "worse": "554 5.7.1 never", "later": LATER}.get(re.split(r"\d*@", address)[0])


def relayed(make_instance, **main):
    """far.test is another server, which answers by the recipient."""
    i = make_instance(start=False, main={"relay_domains": "far.test", "direct_delivery_deadline": "10s", **main})
    i.set(relayhost=f"[127.0.0.1]:{i.port['sink']}")
    i.start()
    return i


def lmtp(i, recipients, sender="u1@example.test"):
    """The replies after the dot, a text each."""
    w = Wire(i.port["lmtp"])
    w.sock.settimeout(60 * SLOW)
    assert w.say(b"LHLO client.example\r\n").startswith(b"250")
    assert w.code(b"MAIL FROM:<%s>\r\n" % sender.encode()) == 250
    for r in recipients:
        assert w.code(b"RCPT TO:<%s>\r\n" % r.encode()) == 250
    assert w.code(b"DATA\r\n") == 354
    w.send(b"Subject: to many\r\n\r\nbody\r\n.\r\n")
    replies = [w.reply().decode().strip() for _ in recipients]
    assert w.code(b"NOOP\r\n") == 250  # and no reply more
    w.close()
    return replies


def queue_empty(i, seconds=30):
    end = time.monotonic() + seconds * SLOW
    while "queue is empty" not in (listed := i.tool("queue", "list").stdout):
        assert time.monotonic() < end, listed + i.tail()
        time.sleep(0.05)


MIXED = ["u1@example.test", "bad@far.test", "ok@far.test", "worse@far.test"]


@pytest.mark.parametrize("direct", ("yes", "no"))
def test_a_reply_for_each_recipient(make_instance, direct):
    i = relayed(make_instance, direct_delivery=direct)
    with Sink(i.port["sink"], replies={"RCPT": answers}) as sink:
        said = lmtp(i, MIXED)
        assert [s[:9] for s in said] == ["250 2.0.0", "550 5.2.2", "250 2.0.0", "550 5.7.1"], said
        assert "mailbox full" in said[1] and "never" in said[3]
        [m] = sink.wait()
        assert m.recipients == ["ok@far.test"]
        assert len(i.wait_messages("u1@example.test")) == 1
        if direct == "yes":
            assert i.wait_log(r" delivery .*to=<bad@far.test>.*way=direct")
        else:
            assert i.wait_log(r" delivery .*to=<bad@far.test>.*way=queue")
        queue_empty(i)
    # whom the client tells gets no notice: what comes next is the next in the mailbox
    assert lmtp(i, ["u1@example.test"])[0].startswith("250")
    assert [b"Subject: to many" in m for m in i.wait_messages("u1@example.test", 2)] == [True, True]


def test_more_recipients_than_go_direct(make_instance):
    i = relayed(make_instance)
    names = [f"{('ok', 'bad')[k % 2]}{k}@far.test" for k in range(40)]
    with Sink(i.port["sink"], replies={"RCPT": answers}):
        said = lmtp(i, names)
        assert [s[:3] for s in said] == ["250", "550"] * 20, said
        queue_empty(i)
    assert not i.messages("u1@example.test")


@pytest.mark.parametrize("direct", ("yes", "no"))
def test_what_waits_is_taken(make_instance, direct):
    """A deferral is the queue's from now on; the failure beside it was told and gets no notice, after a restart neither."""
    i = relayed(make_instance, direct_delivery=direct)
    with Sink(i.port["sink"], replies={"RCPT": answers}) as sink:
        said = lmtp(i, ["later@far.test", "bad@far.test", "ok@far.test"])
        assert [s[:3] for s in said] == ["250", "550", "250"], said
        i.wait_log(r" delivery .*to=<later@far.test>.*status=deferred")
        i.stop()
        i.start()
        with sink.lock:
            sink.replies["RCPT"] = None
        i.tool("queue", "flush")
        messages = sink.wait(2)
        assert [m.recipients for m in messages] == [["ok@far.test"], ["later@far.test"]]
        queue_empty(i)
    assert not i.messages("u1@example.test")


def test_the_deadline(make_instance):
    """Who is not known by then is taken, and a later failure is a notice to the sender."""
    i = relayed(make_instance, direct_delivery_deadline="100ms")
    with Sink(i.port["sink"], replies={"DATA": "hang"}) as sink:
        said = lmtp(i, ["u1@example.test", "slow@far.test"])
        assert [s[:3] for s in said] == ["250", "250"], said
        with sink.lock:
            sink.replies["RCPT"] = BAD
    with Sink(i.port["sink"], replies={"RCPT": BAD}):
        i.wait_log(r" delivery .*to=<slow@far.test>.*status=deferred")
        i.tool("queue", "flush")
        i.wait_messages("u1@example.test", 2, seconds=30)
        queue_empty(i)
    assert b"mailbox full" in b"".join(i.messages("u1@example.test"))


def test_an_alias_of_several(make_instance):
    """One of its addresses is good: the recipient is taken, and the sender hears of the other by a notice."""
    i = relayed(make_instance, virtual_alias_maps="inline:{ { both@example.test = ok@far.test, bad@far.test } }")
    with Sink(i.port["sink"], replies={"RCPT": answers}) as sink:
        said = lmtp(i, ["both@example.test", "worse@far.test"])
        assert [s[:3] for s in said] == ["250", "550"], said
        sink.wait()
        [notice] = i.wait_messages("u1@example.test", seconds=30)
        assert b"mailbox full" in notice and b"worse@far.test" not in notice
        queue_empty(i)


def test_many_failures_fit_one_answer(make_instance):
    i = relayed(make_instance)
    names = [f"bad{k}@far.test" for k in range(600)]
    with Sink(i.port["sink"], replies={"RCPT": lambda a: "550 5.2.2 " + "x" * 400}):
        said = lmtp(i, names)
        assert {s[:9] for s in said} == {"550 5.2.2"} and all("xxxx" in s for s in said)
        queue_empty(i)
    assert not i.messages("u1@example.test")


def test_held_mail_is_taken_at_once(make_instance):
    i = relayed(make_instance, transport_maps="inline:{ { hold.test=hold: } }", relay_domains="far.test hold.test")
    assert [s[:3] for s in lmtp(i, ["x@hold.test", "u1@example.test"])] == ["250", "250"]
    listed = i.tool("queue", "list").stdout
    assert "to hold/hold.test (1 recipient) held" in listed and "to u1@example.test (1 recipient) held" in listed
