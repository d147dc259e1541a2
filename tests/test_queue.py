"""The queue: direct and queued way, durability, crashes, recovery, bounces, hold, expiry, full disk."""
import collections
import email
import email.policy
import json
import os
import re
import shutil
import signal
import smtplib
import subprocess
import time

import pytest

from faults import Strace, Traffic, explain
from instance import SLOW, queue_files, wait
from load import body_of, digest, load, offered, replies
from sink import HANG, NextHop

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def relay_to(i):
    """Parameters that send out.test to the sink."""
    return {"relay_domains": "out.test", "smtp_client_ports": f"25, {i.port['sink']}, {i.port['dns']}",
            "smtp_tls_security_level": "none", "transport_maps": f"inline:{{ out.test=smtp:[127.0.0.1]:{i.port['sink']} }}"}


@pytest.fixture
def with_sink(make_instance):
    """with_sink(direct=..., main={...}) gives an instance that relays out.test to a sink, and the sink."""
    sinks = []

    def make(**options):
        main, start = options.pop("main", {}), options.pop("start", True)
        i = make_instance(start=False, **options)
        i.set(**{**relay_to(i), **main})
        sinks.append(NextHop(i.port["sink"]))
        if start:
            i.start()
        return i, sinks[-1]

    yield make
    for s in sinks:
        s.close()


def send(i, to, content="Subject: x\r\n\r\nhello\r\n", sender="s@example.test", mail=(), rcpt=()):
    to = [to] if isinstance(to, str) else to
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=60) as s:
        s.ehlo("client.test")
        assert s.mail(sender, list(mail))[0] == 250
        for address in to:
            code, text = s.rcpt(address, list(rcpt))
            assert code == 250, text
        code, text = s.data(content)
        return code, text.decode()


def queue_id(reply):
    return re.search(r"as (\w+)", reply[1])[1]


def wait_empty(i, seconds=20):
    end = time.monotonic() + seconds * SLOW
    while time.monotonic() < end:
        if not queue_files(i) and "empty" in i.tool("queue", "list").stdout:
            return
        time.sleep(0.05)
    raise AssertionError("the queue is not empty: " + i.tool("queue", "list").stdout + i.tail())


def status(i):
    line = next(x for x in i.tool("status").stdout.splitlines() if x.startswith("qmgr["))
    return collections.Counter({k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", line)})


def report_of(content):
    """The parts of a multipart/report: text, fields per block, returned."""
    m = email.message_from_bytes(content, policy=email.policy.default)
    assert m.get_content_type() == "multipart/report"
    parts = list(m.iter_parts())
    assert len(parts) == 3
    return m, parts


# --- the two ways ---

@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("size", [100, 300000])
def test_ways(with_sink, direct, size):
    i, sink = with_sink(direct=direct, main={"direct_delivery_deadline": "10s"})  # however busy the machine is
    body = "Subject: w\r\n\r\n" + ("x" * 70 + "\r\n") * (size // 72 + 1)
    assert send(i, ["u1@example.test"], body)[0] == 250
    assert send(i, ["a@out.test"], body)[0] == 250
    stored = i.wait_messages("u1@example.test")[0]
    assert stored.replace(b"\r\n", b"\n").endswith(body.encode().replace(b"\r\n", b"\n"))
    assert sink.wait()[0].content.endswith(body.encode())
    wait_empty(i)
    s = status(i)
    assert s["messages_direct"] == (2 if direct else 0) and s["messages_queued"] == (0 if direct else 2)
    assert s["odd"] == 0 and s["open_files"] == 0


def test_many_recipients_are_queued(with_sink):
    i, sink = with_sink()
    to = [f"r{n}@out.test" for n in range(120)]
    assert send(i, to)[0] == 250
    wait(lambda: sum(len(m.recipients) for m in sink.messages) >= 120, 20, "the message to all")
    assert sorted(r for m in sink.messages for r in m.recipients) == sorted(to)
    assert max(len(m.recipients) for m in sink.messages) <= 50
    wait_empty(i)
    assert status(i)["messages_queued"] == 1


def test_direct_failure_is_told_to_the_client(with_sink):
    i, sink = with_sink()
    sink.answers["bad@out.test"] = "550 5.1.1 no such user here"
    code, text = send(i, "bad@out.test")
    assert code == 550 and "no such user here" in text
    assert not i.messages("s@example.test") and not queue_files(i)


def test_deadline_goes_to_the_queue(with_sink):
    i, sink = with_sink()
    sink.delay = 1.5
    start = time.monotonic()
    assert send(i, "slow@out.test")[0] == 250
    assert time.monotonic() - start < 1.2 * SLOW
    assert queue_files(i)
    sink.wait()
    wait_empty(i)
    assert len(sink.messages) == 1


# --- durable before 250 ---

@ROOT_ONLY
@pytest.mark.parametrize("direct", [True, False])
def test_durable_before_250(make_instance, tmp_path, direct):
    """Between the final dot and the 250 of each message lies an fsync, by strace of qmgr and the delivery."""
    i = make_instance(direct=direct)
    send(i, "u1@example.test")  # the delivery child is there
    i.wait_messages("u1@example.test")
    pids = i.pids("qmgr") + i.pids("smtpd") + i.pids("local")
    trace = tmp_path / "trace"
    args = ["strace", "-f", "-ttt", "-e", "trace=fsync,fdatasync,sendto,sendmsg,write,writev,recvfrom,read", "-s", "60", "-o", trace]
    for pid in pids:
        args += ["-p", str(pid)]
    tracer = subprocess.Popen(args, stderr=subprocess.PIPE)
    time.sleep(1.5)
    for n in range(3):
        assert send(i, "u1@example.test", f"Subject: traced {n}\r\n\r\nx\r\n")[0] == 250
    tracer.send_signal(signal.SIGINT)
    tracer.wait()
    lines = trace.read_text(errors="replace").splitlines()
    replies = [k for k, x in enumerate(lines) if '"250 2.0.0 Ok: queued as' in x]
    assert len(replies) == 3, "\n".join(lines[-80:])
    before = 0
    for k in replies:
        synced = [x for x in lines[before:k] if re.search(r"(fsync|fdatasync)(\(| resumed)", x) and "= 0" in x]
        assert synced, "\n".join(lines[before:k])
        before = k


# --- crashes ---

def both_ways(client, n):
    """To the mailbox and to the next hop in turn, one of ten beyond small_message_limit; marked by the hash of its body."""
    body = f"load {client} {n} {os.urandom(8).hex()}\r\n" + ("y" * 60 + "\r\n") * 500 * (n % 10 == 0)
    return "s@example.test", ["u1@example.test" if n % 2 else "a@out.test"], f"Subject: l\r\n\r\n{body}", {digest(body.encode())}


@pytest.mark.parametrize("direct", [True, False])
def test_kill_qmgr_under_load(with_sink, direct):
    i, sink = with_sink(direct=direct, allow_deaths=True, main={"minimal_backoff_time": "1s", "maximal_backoff_time": "2s", "log_level": "debug"})
    with load(i, 6, both_ways) as clients:
        for _ in range(4):
            time.sleep(0.7 * min(SLOW, 2))
            i.kill_program("qmgr")
            wait(lambda: i.pids("qmgr"), 20, "another qmgr")
        time.sleep(1.0 * min(SLOW, 2))
    nothing_lost(i, sink, clients)


def nothing_lost(i, sink, clients):
    told = replies(clients)
    assert len(told) > 20
    wait_empty(i, 60)
    stored = [digest(body_of(m)) for m in i.messages("u1@example.test")]
    delivered = {*stored, *(digest(body_of(m.content)) for m in sink.messages)}
    lost = {k: ("", told[k]) for k in set(told) - delivered}
    assert not lost, f"{len(lost)} of {len(told)} lost\n" + explain(i, sink, lost)
    assert delivered <= offered(clients), f"{len(delivered - offered(clients))} messages that nobody sent: half ones"
    assert len(stored) == len(set(stored)), f"{len(stored) - len(set(stored))} messages are in the mailbox twice"


def test_a_loss_would_explain_itself(with_sink):
    """What the tests of kills print when mail is gone has both sides of it: the log, and what the next hop said and heard."""
    i, sink = with_sink(main={"log_level": "debug"})
    traffic = Traffic(i, sink, {"out": ("a@out.test", 100), "later": ("b@out.test", 100)})
    sink.answers["b@out.test"] = "450 4.2.0 not now"
    traffic.until_taken("out")
    traffic.until_taken("later")
    name = re.search(r"as (\w+)", next(iter(traffic.replies.values())))[1]
    i.wait_log(rf" delivery qid={name} .* status=sent ")
    i.wait_log(f" smtp-send qid={name} ")
    sink.messages.clear()
    with pytest.raises(AssertionError) as e:
        traffic.check()
    said = str(e.value)
    assert f"smtp-send qid={name} " in said and re.search(rf" delivery qid={name} .* status=sent .*text=\"250 2.0.0 taken\"", said)
    port = re.search(rf"smtp-send qid={name} .* port=(\d+) ", said)[1]
    assert f"conn 1 from port {port}" in (i.folder / "sink.log").read_text()
    assert re.search(r" conn 1 C: content of \d+ bytes, body " + next(iter(traffic.acked)), said) and " conn 1 S: 250 2.0.0 taken" in said


@pytest.mark.parametrize("direct", [True, False])
def test_kill_each_daemon_under_load(with_sink, direct):
    """kill -9 of each daemon in turn, children included: nothing that was acknowledged is lost."""
    i, sink = with_sink(direct=direct, allow_deaths=True, main={"minimal_backoff_time": "1s", "maximal_backoff_time": "2s", "log_level": "debug"})
    with load(i, 4, both_ways) as clients:
        for name in ("smtpd", "local", "smtp-client", "maps", "nss", "dns", "auth", "bounce", "log", "qmgr"):
            time.sleep(0.4 * min(SLOW, 2))
            i.kill_program(name)
        time.sleep(1.5 * min(SLOW, 2))
    i.wait_ready(60)
    i.tool("queue", "flush")
    nothing_lost(i, sink, clients)


def test_restart_keeps_what_waits(with_sink):
    i, sink = with_sink(direct=False)
    sink.usual = "450 4.2.0 not now" + ", as the page tells that this one names" * 8 + ": its end"  # as large providers say it
    ids = [queue_id(send(i, f"d{n}@out.test", f"Subject: d\r\n\r\nwaiting {n}\r\n")) for n in range(5)]
    large = queue_id(send(i, "large@out.test", "Subject: d\r\n\r\n" + "line\r\n" * 20000))
    i.wait_log("status=deferred", count=6)
    files = queue_files(i)
    assert sorted(p.name for p in files) == sorted(ids + [large])
    time.sleep(0.3)
    assert all(p.stat().st_mtime > time.time() + 200 for p in files), "the next attempt stands in the mtime"
    i.stop()
    i.start()
    i.wait_log("queue-recovered.* messages=6")
    attempts = i.log().count("status=deferred")
    listing = i.tool("queue", "list").stdout
    for name in ids + [large]:
        assert name in listing
    assert listing.count("(1 recipient) deferred until") == 6 and listing.count("not now") == listing.count(": its end") == 6
    time.sleep(0.5)
    assert i.log().count("status=deferred") == attempts, "a restart tries nothing before its time"
    sink.usual = "250 ok"
    i.tool("queue", "flush")
    sink.wait(6)
    wait_empty(i)
    assert len(sink.messages) == 6


PATIENT = {"direct_delivery_deadline": "10s"}


def incoming(i):
    return list((i.spool / "queue/incoming").iterdir())


def large(name, bytes_, letter):
    return f"Subject: {name}\r\n\r\n" + (letter * 76 + "\r\n") * (bytes_ // 78)


def test_a_file_of_large_content_is_used_again(with_sink):
    """One file for one large message after the other; nothing of one is in the next, nor left when all is done."""
    i, sink = with_sink(main=PATIENT)
    seen = set()
    for name, bytes_, letter in (("first", 200_000, "a"), ("second", 50_000, "b"), ("third", 120_000, "c")):
        content = large(name, bytes_, letter)
        assert send(i, "u1@example.test", content)[0] == 250
        [m] = [m for m in i.messages("u1@example.test") if f"Subject: {name}".encode() in m]
        assert m.partition(b"\n\n")[2] == content.partition("\r\n\r\n")[2].replace("\r\n", "\n").encode()
        wait(lambda: all(set(p.read_bytes()) <= {0} for p in incoming(i)), what="incoming/, wiped,")
        seen |= {(p.name, p.stat().st_ino) for p in incoming(i)}
    assert len(seen) == 1, seen
    # Queued, it moves into its folder, and ends where the message ends.
    sink.usual = "450 4.2.0 not now"
    code, text = send(i, "late@out.test", large("fourth", 60_000, "d"))
    name = queue_id((code, text))
    [file] = [p for p in queue_files(i) if p.name == name]
    assert file.stat().st_size < 64_000 and b"cccc" not in file.read_bytes()
    assert not incoming(i)


def test_incoming_is_swept_at_the_start(with_sink):
    i, _ = with_sink(main=PATIENT, allow_deaths=True)
    assert send(i, "u1@example.test", large("x", 100_000, "a"))[0] == 250
    wait(lambda: len(incoming(i)) == 1, what="the file, kept for the next message")
    i.kill_program("qmgr")
    wait(lambda: not incoming(i), what="incoming/, empty,")
    assert send(i, "u1@example.test", large("y", 100_000, "a"))[0] == 250
    wait(lambda: len(incoming(i)) == 1, what="the file, kept for the next message")
    i.stop()
    assert not incoming(i), "a stop leaves none"


@pytest.mark.parametrize("parameter", [{"incoming_spare_files": "0"}, {"incoming_spare_size": "64K"}])
def test_files_of_large_content_are_bounded(with_sink, parameter):
    i, _ = with_sink(main={**PATIENT, **parameter})
    assert send(i, "u1@example.test", large("x", 100_000, "a"))[0] == 250
    wait(lambda: not incoming(i), what="the removal of the file")


def test_spool_is_cleaned_at_the_start(make_instance):
    i = make_instance(direct=False, main={"transport_maps": "inline:{ {example.test = retry:not now} }"})
    names = [queue_id(send(i, "u1@example.test", f"Subject: c\r\n\r\n{n}\r\n")) for n in range(4)]
    i.wait_log("status=deferred", count=4)
    i.stop()
    path = {p.name: p for p in queue_files(i)}
    whole = path[names[0]].read_bytes()
    path[names[1]].write_bytes(whole[:-10])  # no footer: was never acknowledged
    damaged = bytearray(path[names[2]].read_bytes())
    damaged[len(damaged) - 64 + 20] ^= 1  # a footer that lies
    path[names[2]].write_bytes(damaged)
    path[names[3]].chmod(0o200)  # a receiver was writing it
    i.start()
    i.wait_log("queue-recovered files=4 messages=1 removed=2 corrupt=1")
    time.sleep(0.3)
    assert [p.name for p in queue_files(i)] == [names[0]]
    assert [p.name for p in (i.spool / "queue" / "corrupt").iterdir()] == [names[2]]
    log = i.log()
    i.set(transport_maps="")
    i.reload()
    i.tool("queue", "flush")
    i.wait_messages("u1@example.test", 1)
    wait_empty(i)
    assert "queue-corrupt" in log


# --- bounces ---

def test_bounce(with_sink):
    i, sink = with_sink(direct=False)
    sink.answers["bad@out.test"] = "550 5.1.1 no such user here"
    sink.answers["worse@out.test"] = "554 5.7.1 go away"
    assert send(i, ["bad@out.test", "good@out.test", "worse@out.test"], "Subject: b\r\nX-Mark: 1\r\n\r\nsecret\r\n",
                sender="u1@example.test", mail=["ENVID=QQ+2B1"], rcpt=["ORCPT=rfc822;orig+2Bx@out.test"])[0] == 250
    content = i.wait_messages("u1@example.test")[0]
    assert content.startswith(b"Return-Path: <>")
    m, (text, dsn, returned) = report_of(content)
    assert m["Auto-Submitted"] == "auto-replied" and "MAILER-DAEMON" in m["From"]
    assert dsn.get_content_type() == "message/delivery-status"
    blocks = dsn.get_payload()
    assert blocks[0]["Reporting-MTA"] == "dns; mx.example.test" and blocks[0]["Original-Envelope-Id"] == "QQ+1"
    assert [b["Final-Recipient"] for b in blocks[1:]] == ["rfc822; bad@out.test", "rfc822; worse@out.test"]
    assert [b["Status"] for b in blocks[1:]] == ["5.1.1", "5.7.1"]
    assert all(b["Action"] == "failed" and b["Original-Recipient"] == "rfc822; orig+x@out.test" for b in blocks[1:])
    assert "no such user here" in blocks[1]["Diagnostic-Code"]
    assert returned.get_content_type() == "text/rfc822-headers"
    assert b"X-Mark: 1" in content and b"secret" not in content
    wait_empty(i)
    assert len(sink.messages) == 1


def test_bounce_does_not_wait_for_a_site_that_rests(with_sink):
    i, sink = with_sink(direct=False, main={"minimal_backoff_time": "2s"})
    i.set(transport_maps=f"inline:{{ out.test=smtp:[127.0.0.1]:{i.port['sink']}, dead.test=smtp:[127.0.0.1]:{i.port['dns']} }}",
          relay_domains="out.test, dead.test")
    i.reload()
    sink.answers["bad@out.test"] = "550 5.1.1 no such user here"
    for n in range(30):  # of one sender: they come before what follows
        send(i, f"x{n}@dead.test", sender="u1@example.test")
    wait(lambda: "resting" in i.tool("queue", "list", "-d").stdout)
    send(i, ["bad@out.test", "behind@dead.test"], sender="u1@example.test")
    content = i.wait_messages("u1@example.test", 1, 20)[0]
    assert [b["Final-Recipient"] for b in report_of(content)[1][1].get_payload()[1:]] == ["rfc822; bad@out.test"]
    assert "to=<behind@dead.test>" not in "".join(line for line in i.log().splitlines() if " delivery " in line)


@pytest.mark.parametrize("size", [100, 40000, 100000])
def test_bounce_full(with_sink, size):
    i, sink = with_sink(direct=False)
    sink.answers["bad@out.test"] = "550 5.1.1 no"
    body = "Subject: full\r\n\r\nsecret\r\n" + ("z" * 70 + "\r\n") * (size // 72)
    send(i, "bad@out.test", body, sender="u1@example.test", mail=["RET=FULL"])
    content = i.wait_messages("u1@example.test")[0]
    _, parts = report_of(content)
    within = size < 50000
    assert parts[2].get_content_type() == ("message/rfc822" if within else "text/rfc822-headers")
    assert (b"secret" in content) == within
    wait_empty(i)


def test_notify(with_sink):
    i, sink = with_sink(direct=False)
    sink.answers["bad@out.test"] = "550 5.1.1 no"
    send(i, "bad@out.test", sender="u1@example.test", rcpt=["NOTIFY=NEVER"])
    send(i, "bad@out.test", sender="u1@example.test", rcpt=["NOTIFY=SUCCESS"])
    send(i, "bad@out.test", sender="")
    wait_empty(i)
    assert not i.messages("u1@example.test")
    # A success notice: the next hop has no DSN, so it is ours ("relayed"); and of our own mailbox.
    send(i, "good@out.test", sender="u1@example.test", rcpt=["NOTIFY=SUCCESS"])
    content = i.wait_messages("u1@example.test", 1)[0]
    assert [b["Action"] for b in report_of(content)[1][1].get_payload()[1:]] == ["relayed"]
    wait_empty(i)


def test_success_notice_of_a_mailbox(make_instance):
    i = make_instance(users={"u1@example.test": "p", "u2@example.test": "p"})
    send(i, "u2@example.test", sender="u1@example.test", rcpt=["NOTIFY=SUCCESS"])
    content = i.wait_messages("u1@example.test", 1)[0]
    assert [b["Action"] for b in report_of(content)[1][1].get_payload()[1:]] == ["delivered"]
    wait_empty(i)
    assert len(i.messages("u2@example.test")) == 1


def test_delay_notice_then_expiry(with_sink):
    i, sink = with_sink(direct=False, main={"delay_warning_time": "1s", "minimal_backoff_time": "1s",
                                            "maximal_backoff_time": "1s", "maximal_queue_lifetime": "5s"})
    sink.usual = "450 4.2.1 busy"
    send(i, "later@out.test", sender="u1@example.test")
    first = i.wait_messages("u1@example.test", 1)[0]
    block = report_of(first)[1][1].get_payload()[1]
    assert block["Action"] == "delayed" and block["Will-Retry-Until"] and block["Status"] == "4.2.1"
    both = i.wait_messages("u1@example.test", 2, 20)
    blocks = [report_of(c)[1][1].get_payload()[1] for c in both]
    failed = next(b for b in blocks if b["Action"] == "failed")
    assert failed["Status"] == "5.4.7" and "busy" in failed["Diagnostic-Code"]
    wait_empty(i)
    assert len(i.messages("u1@example.test")) == 2


def test_delay_notice_without_an_attempt(with_sink):
    """One message has the only slot of its destination and does not end; the one behind it is late all the same."""
    i, sink = with_sink(direct=False, main={"delay_warning_time": "2s", "minimal_backoff_time": "1s",
                                            "maximal_backoff_time": "1s", "smtp_destination_concurrency_limit": "1"})
    sink.answers["first@out.test"] = HANG
    first = queue_id(send(i, "first@out.test", sender="u2@example.test"))
    wait(lambda: "RCPT TO:<first@out.test>" in " ".join(sink.commands), 20, "the first message at the sink")
    second = queue_id(send(i, ["second@out.test", "third@out.test"], sender="u1@example.test"))
    m, parts = report_of(i.wait_messages("u1@example.test", 1, 30)[0])
    blocks = parts[1].get_payload()[1:]
    assert [(b["Final-Recipient"], b["Action"], b["Status"]) for b in blocks] == [
        (f"rfc822; {name}@out.test", "delayed", "4.4.5") for name in ("second", "third")]
    assert "not tried yet" in blocks[0]["Diagnostic-Code"] and not blocks[0]["Last-Attempt-Date"]
    assert not i.messages("u2@example.test"), "the first is under way"
    # A restart knows that it has been told.
    sink.answers, sink.usual = {}, "450 4.2.1 busy"
    i.stop()
    i.start()
    i.wait_log(rf"qid={second} .*status=deferred", 20, 4)
    assert len(i.messages("u1@example.test")) == 1
    for name in (first, second):
        i.tool("queue", "delete", name)
    wait_empty(i)


def test_delay_notice_behind_a_dead_destination(with_sink):
    """One attempt a rest is made, whatever waits: each sender hears of the delay."""
    i, _ = with_sink(direct=False, start=False, main={"delay_warning_time": "2s", "minimal_backoff_time": "1s",
                                                      "maximal_backoff_time": "1h"})
    i.set(transport_maps=f"inline:{{ out.test=smtp:[127.0.0.1]:{i.port['dns']} }}")  # nobody listens there
    i.start()
    names = [queue_id(send(i, f"r{n}@out.test", sender="u1@example.test")) for n in range(12)]
    told = i.wait_messages("u1@example.test", len(names), 40)
    to = {b["Final-Recipient"] for c in told for b in report_of(c)[1][1].get_payload()[1:]}
    assert to == {f"rfc822; r{n}@out.test" for n in range(12)} and len(told) == len(names)
    for name in names:
        i.tool("queue", "delete", name)
    wait_empty(i)


def test_a_held_message_expires(with_sink):
    i, sink = with_sink(direct=False, main={"maximal_queue_lifetime": "3s", "minimal_backoff_time": "1s"})
    sink.usual = "450 4.2.1 busy"
    held = queue_id(send(i, "later@out.test", sender="u1@example.test"))
    i.tool("queue", "hold", held)
    content = i.wait_messages("u1@example.test", 1, 20)[0]
    assert report_of(content)[1][1].get_payload()[1]["Status"] == "5.4.7"
    wait_empty(i)


def test_helpers_may_die(with_sink):
    """kill -9 of bounce, maps, local and smtp-client while notices are made: each notice comes, once."""
    i, sink = with_sink(direct=False, allow_deaths=True, main={"minimal_backoff_time": "1s", "maximal_backoff_time": "1s"})
    sink.answers["bad@out.test"] = "550 5.1.1 no"
    for n in range(40):
        send(i, "bad@out.test", f"Subject: n{n}\r\n\r\nx\r\n", sender="u1@example.test")
        if n % 10 == 5:
            for name in ("bounce", "maps", "local", "smtp-client"):
                for pid in i.pids(name)[:1]:
                    os.kill(pid, signal.SIGKILL)
            time.sleep(1)
    i.wait_messages("u1@example.test", 40, 60)
    wait_empty(i, 60)
    subjects = re.findall(rb"Subject: (n\d+)", b"".join(i.messages("u1@example.test")))
    assert set(subjects) == {b"n%d" % n for n in range(40)}


def test_double_bounce(with_sink):
    i, sink = with_sink(direct=False, main={"notify_classes": "2bounce"}, aliases="postmaster: root\nroot: u1@example.test\n")
    sink.answers["bad@out.test"] = "550 5.1.1 no"
    sink.answers["gone@out.test"] = "550 5.1.1 no"
    send(i, "bad@out.test", sender="gone@out.test")
    content = i.wait_messages("u1@example.test", 1)[0]
    assert b"Postmaster" in content and content.startswith(b"Return-Path: <double-bounce@")
    wait_empty(i)


def test_smtputf8_notice(with_sink):
    i, sink = with_sink(direct=False)
    sink.usual = "550 5.1.1 no"
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=60) as s:
        s.ehlo("client.test")
        s.mail("u1@example.test", ["SMTPUTF8"])
        s.command_encoding = "utf-8"
        assert s.docmd("RCPT", "TO:<bü@out.test>")[0] == 250
        assert s.data("Subject: ü\r\n\r\nx\r\n".encode())[0] == 250
    content = i.wait_messages("u1@example.test", 1)[0]
    assert b"message/global-delivery-status" in content and "Final-Recipient: utf-8; bü@out.test".encode() in content
    wait_empty(i)


# --- logins ---

def test_sender_belongs_to_the_login(make_instance):
    i = make_instance(users={"u1@example.test": "pass1", "u2@example.test": "pass2"})

    def submit(sender):
        with smtplib.SMTP("localhost", i.port["submission"], timeout=60) as s:
            s.starttls(context=i.tls())
            s.login("u1@example.test", "pass1")
            s.mail(sender)
            s.rcpt("u2@example.test")
            return s.data("Subject: t\r\n\r\nx\r\n")

    assert submit("u1@example.test")[0] == 250
    code, text = submit("u2@example.test")
    assert code == 553 and b"5.7.1" in text
    assert len(i.wait_messages("u2@example.test")) == 1
    i.wait_log("sender-refused.*u2@example.test")


# --- the admin ---

def test_hold_release_delete(with_sink):
    i, sink = with_sink(direct=False)
    sink.usual = "450 4.2.0 not now"
    a, b = (queue_id(send(i, f"{x}@out.test", sender=f"{x}@example.com")) for x in "ab")
    i.wait_log("status=deferred", count=2)
    assert "1 message\n" == i.tool("queue", "hold", a).stdout
    listing = i.tool("queue", "list").stdout
    assert re.search(f"{a} .* held", listing) and not re.search(f"{b} .* held", listing)
    i.stop()
    i.start()
    i.wait_log("queue-recovered.*messages=2")
    assert re.search(f"{a} .* held", i.tool("queue", "list").stdout), "a hold outlives a restart"
    sink.usual = "250 ok"
    i.tool("queue", "flush")
    sink.wait(1)
    time.sleep(0.5)
    assert len(sink.messages) == 1 and sink.messages[0].recipients == ["b@out.test"]
    shown = i.tool("queue", "show", a).stdout
    assert "sender: <a@example.com>" in shown and "to: <a@out.test>" in shown and "not now" in shown
    i.tool("queue", "release", a)
    sink.wait(2)
    wait_empty(i)
    sink.usual = "450 4.2.0 not now"
    c = queue_id(send(i, "c@out.test", sender="c@example.com"))
    i.wait_log("status=deferred", count=3)
    for flag, text in (("-d", "127.0.0.1"), ("-s", "c@example.com"), ("-r", "not now")):
        assert text in i.tool("queue", "list", flag).stdout
    assert i.tool("queue", "delete", "c@example.com").stdout == "1 message\n"
    wait_empty(i)
    assert i.tool("queue", "show", c, check=False).returncode == 1
    assert i.tool("queue", "hold", check=False).returncode == 64


@pytest.mark.parametrize("restart", [False, True])
def test_a_hold_while_routes_are_asked(with_sink, restart):
    """What had its slot already, and waited for maps, is held like all else."""
    i, sink = with_sink(direct=False, main={"minimal_backoff_time": "1h", "maximal_backoff_time": "1h"})
    sink.usual = "450 4.2.0 not now"
    name = queue_id(send(i, "a@out.test"))
    i.wait_log("status=deferred")
    if restart:
        i.stop()
        i.start()
        i.wait_log("queue-recovered.*messages=1")
    sink.usual = None
    maps = i.pids("maps")[0]
    os.kill(maps, signal.SIGSTOP)
    try:
        i.tool("queue", "requeue", name)
        wait(lambda: status(i)["in_memory"] == 1)
        assert i.tool("queue", "hold", name).stdout == "1 message\n"
    finally:
        os.kill(maps, signal.SIGCONT)
    wait(lambda: status(i)["in_memory"] == 0)
    assert not sink.messages and status(i)["running_remote"] == 0
    i.tool("queue", "release", name)
    sink.wait(1)
    wait_empty(i)


@ROOT_ONLY
@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
@pytest.mark.parametrize("verb", ["delete", "hold"])
def test_a_file_that_goes_while_it_is_read(with_sink, verb):
    """Deleted, or found damaged after a hold, with the operation of the administrator still under way."""
    i, sink = with_sink(direct=False, main={"minimal_backoff_time": "1h", "maximal_backoff_time": "1h"})
    sink.usual = "450 4.2.0 not now"
    name = queue_id(send(i, "a@out.test"))
    i.wait_log("status=deferred")
    wait(lambda: status(i)["in_memory"] == 0)
    [file] = queue_files(i)
    if verb == "hold":
        file.write_bytes(b"damaged" * 20)
        i.faults = True
    read = "openat:delay_enter" if verb == "delete" else "pread64:delay_exit"
    calls = Strace(i.pids("qmgr")[0], f"{read}={1500000 * SLOW}", f"fsync:delay_enter={3000000 * SLOW}")
    try:
        i.tool("queue", "flush")
        assert i.tool("queue", verb, name).stdout == "1 message\n"
    finally:
        calls.stop()
    wait(lambda: status(i)["in_memory"] == 0)
    assert file.exists() is False and (verb == "delete") != (i.spool / "queue/corrupt" / name).exists()
    assert send(i, "u1@example.test")[0] == 250


def test_dead_site_does_not_delay_others(with_sink):
    i, sink = with_sink(direct=False, main={"minimal_backoff_time": "2s"})
    i.set(transport_maps=f"inline:{{ out.test=smtp:[127.0.0.1]:{i.port['sink']}, dead.test=smtp:[127.0.0.1]:{i.port['dns']} }}",
          relay_domains="out.test, dead.test")
    i.reload()
    for n in range(30):
        send(i, f"x{n}@dead.test")
    start = time.monotonic()
    send(i, "well@out.test")
    sink.wait(1)
    assert time.monotonic() - start < 5 * SLOW
    i.wait_log("to=<x.*status=deferred")
    attempts = i.log().count("status=deferred")
    assert attempts <= 12, "a site that does not answer rests"
    s = i.tool("queue", "list", "-d").stdout
    assert "resting" in s


# --- expansions ---

@ROOT_ONLY
@pytest.mark.parametrize("lines", [1, 5000])
def test_include_and_owner(make_instance, lines):
    i = make_instance(start=False, users={"u1@example.test": "p", "u2@example.test": "p"}, direct=True)
    members = i.folder / "members"
    members.write_text("u1@example.test\nu2@example.test\nu1@example.test\n")
    members.chmod(0o644)
    (i.etc / "aliases").write_text(f"postmaster: root\nroot: u1@example.test\nlist: :include:{members}\n"
                                   "owner-list: u2@example.test\n")
    i.start()
    body = "Subject: to the list\r\n\r\n" + "members\r\n" * lines
    send(i, "list@mx.example.test", body, sender="s@example.com")
    one = i.wait_messages("u1@example.test", 1)
    two = i.wait_messages("u2@example.test", 1)
    wait_empty(i)
    assert len(i.messages("u1@example.test")) == 1
    for content in one + two:
        assert content.replace(b"\r\n", b"\n").endswith(body.encode().replace(b"\r\n", b"\n"))
        assert content.startswith(b"Return-Path: <owner-list@mx.example.test>"), "what fails behind a list is its owner's"
    assert status(i)["odd"] == 0


def blocks_of(notice):
    return report_of(notice)[1][1].get_payload()[1:]


@ROOT_ONLY
def test_notices_of_lists_and_aliases(with_sink, tmp_path):
    """RFC 3461 5.2.7: what a sender asked for ends at a list, which has a sender of its own, and goes on behind an alias."""
    i, sink = with_sink(direct=False, users={"u1@example.test": "p", "u2@example.test": "p"})
    sink.features += ("DSN",)
    for name, members in (("list", "a@out.test b@out.test"), ("one", "c@out.test"), ("two", "d@out.test u2@example.test")):
        (tmp_path / name).write_text(members.replace(" ", "\n") + "\n")
    (i.etc / "aliases").write_text("postmaster: root\nroot: u1@example.test\nowner-list: u2@example.test\n" + "".join(
        f"{name}: :include:{tmp_path / name}\n" for name in ("list", "one", "two")))
    i.tool("check", check=False)
    i.reload()
    asked = {"mail": ["RET=FULL", "ENVID=id77"], "rcpt": ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;first@there.test"]}

    def to(alias, count, **what):
        before = i.messages("u1@example.test")
        sink.messages.clear()
        send(i, f"{alias}@mx.example.test", **{"sender": "u1@example.test", **what})
        sink.wait(count)
        wait_empty(i)
        return sink.messages, [m for m in i.messages("u1@example.test") if m not in before]  # names do not sort by time

    [m], [notice] = to("list", 1, **asked)
    assert m.sender == "owner-list@mx.example.test" and m.recipients == ["a@out.test", "b@out.test"]
    assert not any(word in p for p in m.parameters for word in ("NOTIFY", "ORCPT", "ENVID", "RET")), m.parameters
    assert [b["Action"] for b in blocks_of(notice)] == ["delivered"]
    [m], notices = to("one", 1, **asked)
    assert m.sender == "u1@example.test" and not notices  # its fate is reported from there
    assert all(any(word in p for p in m.parameters) for word in ("NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;first", "ENVID=id77"))
    [m], [notice] = to("two", 1, **asked)
    assert [b["Action"] for b in blocks_of(notice)] == ["expanded"]
    assert any("NOTIFY=FAILURE" in p for p in m.parameters) and any("ENVID=id77" in p for p in m.parameters)
    # A notice that comes to a list stays one: nothing answers it.
    sink.answers["a@out.test"] = "550 5.1.1 no"
    [m], notices = to("list", 1, sender="")
    assert m.sender == "" and m.recipients == ["b@out.test"] and not notices
    # A hold that was released is over for what the message became, too.
    i.set(transport_maps=i.main["transport_maps"].replace("}", f", stop.test=hold:[127.0.0.1]:{i.port['sink']} }}"),
          relay_domains="out.test, stop.test")
    i.reload()
    sink.messages.clear()
    held = queue_id(send(i, ["x@stop.test", "one@mx.example.test"]))
    i.tool("queue", "release", held)
    assert {r for m in sink.wait(2) for r in m.recipients} == {"x@stop.test", "c@out.test"}
    wait_empty(i)


# --- a full disk ---

@ROOT_ONLY
def test_full_disk(make_instance, tmp_path):
    image, mount = tmp_path / "image", tmp_path / "disk"
    mount.mkdir()
    image.write_bytes(b"\0" * (12 << 20))
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, mount]).returncode:
        pytest.skip("no loop mounts here")
    try:
        i = make_instance(start=False, direct=False, allow_deaths=True, users={"u1@example.test": "p"},
                          main={"queue_directory": mount, "queue_minfree": "0", "message_size_limit": "1M",
                                "transport_maps": "inline:{ {example.test = retry:not now} }"})
        i.spool = mount
        mount.chmod(0o755)
        i.write()
        i.start()
        codes, acked, body = [], [], "Subject: f\r\n\r\n" + ("q" * 70 + "\r\n") * 8000
        for n in range(40):
            code, text = send(i, "u1@example.test", body + f"{n}\r\n")
            codes.append(code)
            if code == 250:
                acked.append(queue_id((code, text)))
            elif codes[-3:] == [452, 452, 452]:
                break
        assert 452 in codes and acked, codes
        assert set(codes) == {250, 452}, codes
        i.wait_log("queue-commit|queue-space-low|code=452")
        end = time.monotonic() + 20 * SLOW
        while len(queue_files(i)) > len(acked) and time.monotonic() < end:
            time.sleep(0.05)  # what was refused is removed when nobody waits for it any more
        assert sorted(p.name for p in queue_files(i)) == sorted(acked)
        # Space again: mail flows, and what was acknowledged is all there.
        i.set(transport_maps="")
        i.reload()
        i.tool("queue", "flush")
        i.wait_messages("u1@example.test", len(acked), 30)
        wait_empty(i)

        def taken():  # as soon as qmgr has looked at the space again
            try:
                return send(i, "u1@example.test", body)[0] == 250
            except AssertionError:
                return False

        wait(taken, 20, "an acceptance")
        wait_empty(i)
        i.stop()
    finally:
        subprocess.run(["umount", mount], check=False)


@ROOT_ONLY
def test_sync_error_ends_trust(make_instance):
    """EIO from fsync: the client keeps the message, nothing more is accepted until an admin says so."""
    i = make_instance(direct=False, allow_deaths=True)
    assert send(i, "u1@example.test")[0] == 250
    wait_empty(i)
    tracer = subprocess.Popen(["strace", "-f", "-qq", "-e", "trace=fsync", "-e",
                               "inject=fsync:error=EIO:syscall=getpid", "-p", str(i.pids("qmgr")[0])],
                              stderr=subprocess.PIPE)
    time.sleep(1.5)
    assert send(i, "u1@example.test")[0] == 451
    tracer.send_signal(signal.SIGINT)
    tracer.wait()
    assert not queue_files(i)
    assert send(i, "u1@example.test")[0] == 451, "a sync that works again proves nothing"
    i.wait_log("queue-broken.*Input/output error")
    assert status(i)["broken"] == 1
    i.tool("queue", "trust")
    assert send(i, "u1@example.test")[0] == 250
    wait_empty(i)
    assert len(i.messages("u1@example.test")) == 2


@ROOT_ONLY
def test_minfree(make_instance):
    i = make_instance(direct=False, main={"queue_minfree": str(1 << 50)})
    codes = []
    for _ in range(20):
        codes.append(send(i, "u1@example.test")[0])
        time.sleep(0.1)
        if codes[-1] == 452:
            break
    assert codes[-1] == 452
    i.wait_log("queue-space-low")


def test_a_message_to_many_destinations_is_listed(make_instance):
    """What `queue list` says of one message may be longer than one part of an answer."""
    i = make_instance(main={"defer_transports": "smtp", "mynetworks": "127.0.0.0/8", "dns_site_grouping": "no"})
    pid = i.pids("qmgr")
    domains = [f"a-domain-with-quite-a-long-name-{n}.example.net" for n in range(1000)]
    code, text = send(i, [f"someone@{d}" for d in domains])
    assert code == 250, text
    short = send(i, "u@short.example.net")
    for flags in ((), ("-j",)):
        listing = i.tool("queue", "list", *flags).stdout
        assert len(listing) > 65536 and queue_id(short) in listing
        if flags:
            jobs = [job for line in listing.splitlines() for job in json.loads(line)["jobs"]]
            assert {job["destination"] for job in jobs} == {*domains, "short.example.net"}
        else:
            assert {*domains, "short.example.net"} == set(re.findall(r"^    to (\S+)", listing, re.M))
    assert i.pids("qmgr") == pid


def test_the_largest_small_message(make_instance):
    """Up to small_message_limit and past it, at the largest that this can be: every way of a content fits its message."""
    i = make_instance(main={"small_message_limit": "48000", "direct_delivery": "no"})
    sizes = range(47000, 48400, 50)
    for n in sizes:
        code, text = send(i, "u1@example.test", "Subject: x\r\n\r\n" + ("y" * 998 + "\r\n") * (n // 1000) + "z" * (n % 1000) + "\r\n")
        assert code == 250, text
    i.wait_messages("u1@example.test", len(sizes))
    i.set(small_message_limit="48001")
    assert "small_message_limit" in i.tool("check", check=False).stdout


def test_a_notice_to_many(make_instance):
    """The sender is a list of more addresses than fit into one message between processes: its notice goes all the same."""
    i = make_instance(start=False, main={"transport_maps": "inline:{ { out.test=error:5.1.1 nobody } }", "direct_delivery": "no",
                                         "relay_domains": "out.test"})
    names = [f"{n}-{'x' * 20}@example.test" for n in range(990)]
    (i.etc / "virtual").write_text(f"a-list-with-a-long-name@example.test {', '.join(['u1@example.test', *names])}\n")
    i.set(virtual_alias_maps=f"texthash:{i.etc}/virtual")
    i.start()
    reply = send(i, "a@out.test", sender="a-list-with-a-long-name@example.test")
    assert reply[0] == 250
    said = i.wait_log(f"notice qid={queue_id(reply)} |notice-failed qid={queue_id(reply)} ")
    assert "the sender was told" in said[0]
    assert b"nobody" in i.wait_messages("u1@example.test")[0]
