"""Limits of processes, caches and times that no other file turns: each by what it changes."""
import contextlib
import imaplib
import os
import re
import shutil
import smtplib
import threading
import time

import pytest

from instance import BIN, SLOW, wait
from nameserver import HAVE, Nameserver
from sink import HANG, Session, Sink
from test_clock import Clock
from test_local import DOMAIN, maildir, root_only, start as start_local, users  # noqa: F401
from test_parameters import first_line, submission
from test_settings import TEXT, TWO, U1, U2, Slow, send, to_sink  # noqa: F401

OWN_SESSIONS = {"smtp_connection_cache_time_limit": "0", "minimal_backoff_time": "1h", "direct_delivery": "no"}


def numbers(i, program):
    """What `bulkhead status` says of a program: {"cached": 3}."""
    [line] = re.findall(rf"^{program}\[[^\]]*\]:(.*)$", i.tool("status").stdout, re.M)
    return {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", line)}


# --- the suite ---

def test_config_directory(make_instance):
    """It is the folder that is read, whoever refers to it."""
    i = make_instance(main={"alias_maps": "hash:$config_directory/aliases"}, aliases="team: u1@example.test\nroot: team\n")
    assert i.tool("conf", "-h", "config_directory").stdout == f"{i.etc}\n"
    send(i, "team@localhost")
    i.wait_messages(U1)


def test_stop_timeout(make_instance):
    i = make_instance(main={"stop_timeout": "1s"}, allow_deaths=True)
    c = smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=60 * SLOW)
    c.ehlo("x")
    c.mail("a@far.test")
    c.rcpt(U1)
    assert c.docmd("DATA")[0] == 354  # and never an end
    began = time.monotonic()
    i.stop()
    assert 0.9 < time.monotonic() - began < 15 * SLOW
    assert re.search(r"stop-timeout .*processes=\d+ .*raise stop_timeout", i.log())


# --- processes of the front ends ---

@pytest.mark.parametrize("main,processes", [({}, 2), ({"sessions_per_process": "10"}, 1)])
def test_sessions_per_process(make_instance, main, processes):
    i = make_instance(main=main)
    clients = [imaplib.IMAP4("127.0.0.1", i.port["imap"]) for _ in range(2)]
    found = [i.wait_log(rf"\]: connect .* port={c.sock.getsockname()[1]} service=imap")[0] for c in clients]
    assert len({re.search(r"-child\[(\d+)\]", line)[1] for line in found}) == processes, found
    for c in clients:
        c.logout()


@pytest.mark.parametrize("limit,processes", [("100", 1), ("1", 2)])
def test_sessions_of_lmtp(make_instance, limit, processes):
    i = make_instance(main={"lmtp_sessions_per_process": limit}, all_running=True)
    clients = [smtplib.LMTP("127.0.0.1", i.port["lmtp"]) for _ in range(2)]
    lines = i.wait_log(rf"\]: smtp-connect .*service=127.0.0.1:{i.port['lmtp']}$", count=3)[1:]  # the first is of the start
    assert len({re.search(r"-child\[(\d+)\]", line)[1] for line in lines}) == processes, lines
    for c in clients:
        c.quit()


def test_process_limit(make_instance):
    """One process, one session in it: whoever comes meanwhile is told so, and the service of another port is not touched."""
    i = make_instance(main={"default_process_limit": "1", "sessions_per_process": "1"})
    wait(lambda: first_line(i, "imap").startswith(b"* OK "), 10, "the process of who knocked at the start has ended")
    c = wait(lambda: greeted(i), 10, "a session")
    assert first_line(i, "imap").startswith(b"* BYE ")
    i.wait_log("connection-refused .*raise maxproc in master.cf")
    assert first_line(i, "pop3").startswith(b"+OK ")
    c.logout()
    wait(lambda: first_line(i, "imap").startswith(b"* OK "), 10, "room")


def greeted(i):
    with contextlib.suppress(imaplib.IMAP4.error):
        return imaplib.IMAP4("127.0.0.1", i.port["imap"])


def test_exceptions_from_limits(make_instance):
    i = make_instance(main={"mynetworks": "192.0.2.0/24", "smtpd_client_connection_rate_limit": "2",
                            "smtpd_client_event_limit_exceptions": "127.0.0.0/8"})
    for name in ("smtp", "imap"):
        for _ in range(5):
            assert first_line(i, name)[:4] in (b"220 ", b"* OK")
    i.set(smtpd_client_event_limit_exceptions="!127.0.0.1, 127.0.0.0/8")
    i.reload()
    wait(lambda: first_line(i, "smtp").startswith(b"421 "), 10, "the limit")


# --- logins ---

def cached(i, user=U1, password="pass1"):
    """Whether auth knew the password of this login from one before."""
    before = len(i.wait_log(" auth-ok ", count=0))
    submission(i, user, password).quit()
    return "cached=yes" in i.wait_log(" auth-ok ", count=before + 1)[-1]


def test_cache_of_passwords(make_instance):
    i = make_instance(users=TWO)
    assert not cached(i) and cached(i)
    i.set(auth_cache_time="0s")
    i.reload()
    wait(lambda: not cached(i), 20, "a login that is not remembered")
    assert not cached(i)
    i.set(auth_cache_time="1h", auth_cache_size="1")
    i.reload()
    wait(lambda: cached(i), 20, "a login that is remembered")
    assert not cached(i, U2, "pass2") and cached(i, U2, "pass2") and not cached(i)
    i.set(auth_cache_time="1s", auth_cache_size="100")
    i.reload()
    wait(lambda: cached(i) and cached(i, U2, "pass2"), 20, "both")
    time.sleep(1.1)
    assert not cached(i)


# --- IMAP ---

@pytest.mark.skipif(SLOW != 1, reason="a sanitizer wants to be the first library")
def test_idle_time(make_instance, tmp_path):
    """A client that says nothing for so long is told goodbye; one that was heard a moment ago is not."""
    programs = tmp_path / "bin"
    shutil.copytree(BIN, programs, symlinks=True)
    clock = Clock(tmp_path, programs, "imapd")
    i = make_instance(start=False, main={"imap_idle_timeout": "10m", "daemon_directory": programs})
    i.start()
    clients = [imaplib.IMAP4_SSL("localhost", i.port["imaps"], ssl_context=i.tls()) for _ in range(2)]
    for c in clients:
        c.login(U1, "pass1")
    clock.set(0, 590)
    assert clients[0].noop()[0] == "OK"  # heard just before
    clock.set(0, 601)
    assert clients[0].noop()[0] == "OK"
    clients[1].sock.settimeout(20)
    assert clients[1].readline().startswith(b"* BYE [UNAVAILABLE] Idle for too long")
    assert clients[0].noop()[0] == "OK"


@pytest.mark.skipif(SLOW != 1, reason="a sanitizer wants to be the first library")
def test_a_long_answer_is_no_silence(make_instance, tmp_path):
    """The client took its answer bit by bit, longer than imap_idle_timeout: its time begins when it has it all."""
    programs = tmp_path / "bin"
    shutil.copytree(BIN, programs, symlinks=True)
    clock = Clock(tmp_path, programs, "imapd")
    i = make_instance(start=False, main={"imap_idle_timeout": "10m", "daemon_directory": programs, "message_size_limit": "30M",
                                         "imap_append_limit": "30M"})
    i.start()
    c = imaplib.IMAP4("localhost", i.port["imap"], timeout=30)
    c.starttls(ssl_context=i.tls())
    c.login(U1, "pass1")
    body = b"Subject: large\r\n\r\n" + (b"x" * 70 + b"\r\n") * 400000
    assert c.append("INBOX", None, None, body)[0] == "OK"
    assert c.select()[0] == "OK"
    c.send(b"f FETCH 1 BODY.PEEK[]\r\n")
    assert b"FETCH" in c.readline()
    for minutes in (4, 8, 12):
        assert len(c.read(8 << 20)) == 8 << 20  # more than fits between us
        clock.set(0, 60 * minutes)
    c.read(len(body) - (24 << 20))
    assert c.readline() == b")\r\n"
    assert c.readline() == b"f OK Done\r\n"
    time.sleep(0.3)  # a BYE would be there by now
    assert c.noop()[0] == "OK"


@pytest.mark.skipif(SLOW != 1, reason="the memory of a sanitizer is its own")
@pytest.mark.parametrize("watermark,waits", [("64M", True), ("16K", False)])
def test_output_that_waits(make_instance, watermark, waits):
    """24 MB are fetched by a client that does not read: so much of it is in memory as the parameter lets."""
    i = make_instance(main={"imap_output_watermark": watermark, "message_size_limit": "50M", "imap_append_limit": "50M"})
    c = imaplib.IMAP4("localhost", i.port["imap"])
    c.starttls(ssl_context=i.tls())
    c.login(U1, "pass1")
    body = b"Subject: large\r\n\r\n" + (b"x" * 70 + b"\r\n") * 42000
    for _ in range(8):
        assert c.append("INBOX", None, None, body)[0] == "OK"
    c.select()
    [pid] = [p for p in i.pids("imapd") if "imapd-child" in open(f"/proc/{p}/cmdline").read()] or [max(i.pids("imapd"))]

    def most():
        return int(re.search(r"VmHWM:\s+(\d+)", open(f"/proc/{pid}/status").read())[1]) // 1024

    before = most()
    c.send(b"f FETCH 1:* BODY.PEEK[]\r\n")
    if waits:
        wait(lambda: most() - before > 12, 20, "output in memory")
    else:
        time.sleep(1)
    while not c.readline().startswith(b"f OK"):
        pass
    assert (most() - before > 12) == waits, (before, most())
    c.logout()


# --- delivery here ---

@root_only
@pytest.mark.parametrize("threads", [1, 3])
def test_threads_of_a_delivery(make_instance, tmp_path, threads):
    """As many commands of one user run at once, for all that more wait."""
    folder = tmp_path / "runs"
    folder.mkdir()
    folder.chmod(0o777)
    command = f"mkdir {folder}/$$ && while test ! -e {folder}/go; do sleep 0.05; done"
    i = make_instance(aliases=f'slow: "|/bin/sh -c \'{command}\'"\nroot: u1@example.test\npostmaster: root\n', start=False)
    i.set(local_delivery_threads=threads, direct_delivery="no", initial_destination_concurrency="10")
    i.start()
    for _ in range(6):
        send(i, "slow@localhost")
    wait(lambda: len(os.listdir(folder)) >= threads, 20, "the commands")
    time.sleep(0.7)
    assert len(os.listdir(folder)) == threads
    (folder / "go").touch()
    i.wait_log(" delivery .*status=sent", 30, 6)
    assert len(os.listdir(folder)) == 7


# --- the queue ---

def ways(i, count):
    return sorted(re.search(r" way=(\w+)", line)[1] for line in i.wait_log(" delivery .*status=sent", 20, count))


@pytest.mark.parametrize("limit,second", [("1", "queue"), ("2", "direct")])
def test_jobs_on_the_direct_way(to_sink, limit, second):  # noqa: F811
    i = to_sink({"direct_delivery_jobs": limit, "direct_delivery_deadline": "10s"})
    go, held = threading.Event(), threading.Event()

    def end(recipients):
        if recipients == "x1@far.test":
            held.set()
            go.wait(60 * SLOW)

    with Sink(i.port["sink"], replies={"END": end}):
        first = threading.Thread(target=send, args=(i, "x1@far.test"))
        first.start()
        assert held.wait(30 * SLOW)
        send(i, "x2@far.test")  # is answered while the first one waits
        go.set()
        first.join()
        assert ways(i, 2) == ["direct", second]


def test_life_of_notices(to_sink):  # noqa: F811
    """What has no sender expires by itself, and nobody is told; a message waits on."""
    i = to_sink({"bounce_queue_lifetime": "1s", "direct_delivery": "no", "maximal_queue_lifetime": "1d"})
    with Sink(i.port["sink"], replies={"RCPT": "450 4.2.0 later"}):
        send(i, "mail@far.test", sender=U1)
        send(i, "notice@far.test", sender="")
        i.wait_log(r" delivery .*to=<notice@far.test> status=expired")
        assert "to=<mail@far.test> status=expired" not in i.log()
        wait(lambda: re.findall(r" <(.*)>\n", i.tool("queue", "list").stdout) == [U1], 10, "the end of the notice")
        assert i.messages(U1) == []


def test_recipients_of_a_delivery_by_lmtp(make_instance):
    i = make_instance(start=False, main={"relay_domains": "r.test", "lmtp_destination_recipient_limit": "2"})
    i.set(relay_transport="lmtp:[127.0.0.1]", lmtp_tcp_port=i.port["sink"])
    i.start()
    with Sink(i.port["sink"], lmtp=True) as sink:
        send(i, [f"x{n}@r.test" for n in range(5)])
        assert sorted(len(m.recipients) for m in sink.wait(3)) == [1, 2, 2]


def test_answers_of_maps_that_are_kept(make_instance):
    """Each recipient is asked about again, or not at all."""
    def asked(limit):
        i = make_instance(main={"maps_cache_limit": limit})
        send(i, U1)
        before = numbers(i, "maps")
        for _ in range(3):
            send(i, U1)
        i.wait_messages(U1, 4)
        after = numbers(i, "maps")
        return [after[name] - before[name] for name in ("checks", "routes")]

    assert asked("10000") == [0, 0]
    checks, routes = asked("0")
    assert checks >= 3 and routes == 3


# --- the way out ---

@pytest.mark.parametrize("limit", [1, 3])
def test_connections_of_a_process(to_sink, limit):  # noqa: F811
    i = to_sink({"smtp_connections_per_process": limit, "initial_destination_concurrency": "10", "direct_delivery": "no"})
    with Slow(i.port["sink"]) as sink:
        for n in range(8):
            send(i, f"x{n}@far.test")
        sink.wait(8)
        assert sink.most <= limit and (SLOW > 1 or sink.most == limit), sink.most


def said(sink, verb):
    """When the client said that first, and when its connection was over."""
    began = next((t, conn) for t, conn, who, text in sink.record if who == "C:" and text.startswith(verb))
    return began[0], wait(lambda: [t for t, conn, who, _ in sink.record if conn == began[1] and who == "end"], 30, "its end")[0]


@pytest.mark.parametrize("verb,parameter", [("RSET", "smtp_rset_timeout"), ("QUIT", "smtp_quit_timeout")])
def test_time_outs_between_messages(to_sink, verb, parameter):  # noqa: F811
    i = to_sink({parameter: "1s", "smtp_connection_cache_time_limit": "1s" if verb == "QUIT" else "1h", "direct_delivery": "no"})
    with Sink(i.port["sink"], replies={verb: HANG, "RCPT": ["550 5.1.1 no", None]}) as sink:
        send(i, "x1@far.test")
        i.wait_log(" delivery .*to=<x1@far.test> .*status=bounced")
        if verb == "RSET":  # on the connection that was kept; then on a new one, at once
            send(i, "x2@far.test")
            assert sink.wait()[0].recipients == ["x2@far.test"]
        began, over = wait(lambda: any(t.startswith(verb) for _, _, _, t in sink.record), 20) and said(sink, verb)
        assert 0.9 < over - began < 6 * SLOW


class Deaf(Session):
    """Stops reading in the midst of the content."""

    def do_DATA(self, _):
        self.write("354 go on")
        self.sink.deaf.wait(60)
        return False


class DeafSink(Sink):
    def __init__(self, port):
        self.deaf = threading.Event()
        super().__init__(port)

    def serve(self, client, number):
        with contextlib.suppress(OSError, ValueError):
            Deaf(self, client, number).run()
        client.close()


def test_time_out_of_content(to_sink):  # noqa: F811
    i = to_sink({"smtp_data_xfer_timeout": "1s", "direct_delivery": "no", "message_size_limit": "50M"})
    with DeafSink(i.port["sink"]) as sink:
        send(i, "x@far.test", TEXT + ("x" * 70 + "\r\n") * 250000)
        i.wait_log(" delivery .*to=<x@far.test> .*status=deferred .*timed out while waiting for", seconds=20)
        sink.deaf.set()


# --- names ---

@pytest.mark.skipif(not HAVE, reason="needs nsd")
def test_cache_of_names(make_instance, tmp_path):
    """How many questions reach the name server for a second message to the same domain."""
    def asked(to, pause=0, **main):
        i = make_instance(start=False, main=OWN_SESSIONS)
        i.set(smtp_tcp_port=i.port["sink"], **main)
        with Nameserver(tmp_path / f"ns{i.block}", i.port["dns"], {"far.test": "@ MX 10 mx\nmx A 127.0.0.1\n"}):
            i.start()
            with Sink(i.port["sink"]):
                send(i, f"x1@{to}")
                i.wait_log(rf" delivery .*to=<x1@{to}> ")
                before = numbers(i, "dns")["sent"]
                time.sleep(pause)
                send(i, f"x2@{to}")
                i.wait_log(rf" delivery .*to=<x2@{to}> ")
                sent = numbers(i, "dns")["sent"] - before
                i.stop()
                return sent

    assert asked("far.test", 1.2) == 0
    assert asked("far.test", dns_cache_size="0") > 0
    assert asked("far.test", 2.1, dns_cache_max_time="1s") > 0
    assert asked("none.far.test") == 0
    assert asked("none.far.test", dns_cache_negative_time="0s") > 0
