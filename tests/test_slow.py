"""Slow and short: a disk that hangs, a full one, no descriptors, clients that trickle, very many connections.

Intake slows down and then answers 452 4.3.1; delivery, bounces and others' mail go on (docs/DESIGN.md section 4).
"""
import imaplib
import os
import pathlib
import re
import resource
import shutil
import signal
import smtplib
import socket
import subprocess
import threading
import time

import pytest

from instance import SLOW
from test_local import wait
from test_local_faults import Strace
from test_queue import body_of, digest, queue_files, report_of, send, status, wait_empty, with_sink  # noqa: F401

LONG = os.environ.get("BULKHEAD_LONG") == "1"
HANG = 100 * SLOW  # seconds that a sync takes, where it hangs: longer than the test
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="traces processes of other users, mounts")


class SlowSync:
    """Each fsync of a process takes so long, until stop()."""

    def __init__(self, pid, seconds):
        self.process = subprocess.Popen(["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "-e",
                                         f"inject=fsync:delay_enter={int(seconds * 1e6)}", "-p", str(pid)], stderr=subprocess.DEVNULL)
        tasks = pathlib.Path(f"/proc/{pid}/task")
        wait(lambda: all("TracerPid:\t0\n" not in (t / "status").read_text() for t in tasks.iterdir()), 20, "strace")
        self.tasks = tasks

    def hanging(self):
        """How many threads are in a sync just now."""
        return sum("State:\tt" in (t / "status").read_text() for t in self.tasks.iterdir())

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)


class Clients:
    """Each sends one message in a thread of its own and keeps the answer."""

    def __init__(self, i, n, to, size=100):
        self.i, self.answers, self.sent = i, [], {}
        self.threads = [threading.Thread(target=self.one, args=(to, size), daemon=True) for _ in range(n)]
        for t in self.threads:
            t.start()

    def one(self, to, size):
        body = os.urandom(16).hex() + "\r\n" + ("x" * 62 + "\r\n") * (size // 64)
        with smtplib.SMTP("127.0.0.1", self.i.port["smtp"], timeout=200 * SLOW) as s:
            s.ehlo("client.test")
            s.mail("s@example.test")
            for address in to:
                s.rcpt(address)
            code, text = s.data("Subject: x\r\n\r\n" + body)
        self.answers.append((code, text.decode(), digest(body.encode())))

    def codes(self):
        return [a[0] for a in list(self.answers)]

    def join(self):
        for t in self.threads:
            t.join(100 * SLOW)
        assert len(self.answers) == len(self.threads)


FEW = ["u1@example.test", "u1@example.test"]


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_disk_that_hangs(with_sink):  # noqa: F811
    """Every sync of the queue hangs: what waits in it is delivered, what goes direct is too, intake ends in 452."""
    i, sink = with_sink(main={"qmgr_inflight_limit": "1M", "minimal_backoff_time": "1s", "direct_delivery_recipients": "1",
                              "direct_delivery_deadline": "10s"}, users={"u1@example.test": "p", "u2@example.test": "p"},
                        allow_deaths=True)
    sink.usual = "450 4.2.0 not now"
    for n in range(3):
        assert send(i, ["d@out.test", f"e{n}@out.test"])[0] == 250
    i.wait_log("status=deferred", count=6)
    i.stop()
    i.start()  # nothing of them is in memory: they are read from the disk
    assert send(i, "u2@example.test")[0] == 250
    i.wait_log("queue-recovered.*messages=3")
    slow = SlowSync(i.pids("qmgr")[0], HANG)
    try:
        clients = Clients(i, 40, ["u1@example.test", "u2@example.test"])
        wait(lambda: slow.hanging() >= 16, 30, "16 syncs that hang")
        sink.usual = None
        i.tool("queue", "flush")
        sink.wait(3, 30 * SLOW)
        assert send(i, "u2@example.test", "Subject: d\r\n\r\ndirect\r\n")[0] == 250
        assert not clients.answers, "the queue answered for what it has not synced"
        more = Clients(i, 100, ["u1@example.test", "u2@example.test"], 15000)
        wait(lambda: 452 in more.codes(), 30, "452")
        assert not clients.answers and set(more.codes()) == {452}
        assert all(a[1].startswith("4.3.1") for a in more.answers), more.answers
    finally:
        slow.stop()
    clients.join()
    more.join()
    assert set(clients.codes()) == {250} and set(more.codes()) == {250, 452}
    wait_empty(i, 60)
    stored = {digest(body_of(m)) for m in i.messages("u1@example.test")}
    acked = {a[2] for a in clients.answers + more.answers if a[0] == 250}
    assert acked and not acked - stored
    assert i.log().count("direct") and status(i)["broken"] == 0


def test_full_disk_keeps_a_reserve(with_sink, tmp_path):  # noqa: F811
    """Below queue_minfree clients get 452; what is queued goes out, and a bounce is taken in."""
    image, mount = tmp_path / "image", tmp_path / "disk"
    mount.mkdir()
    subprocess.run(["truncate", "-s", "32M", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, mount], check=False).returncode:
        pytest.skip("no loop mounts here")
    try:
        mount.chmod(0o755)
        i, sink = with_sink(direct=False, allow_deaths=True, main={"queue_directory": mount, "queue_minfree": "8M", "message_size_limit": "1M"},
                            users={"u1@example.test": "p"})
        i.spool = mount
        sink.usual = "450 4.2.0 not now"
        for address in ("a@out.test", "bad@out.test"):
            assert send(i, address, sender="u1@example.test")[0] == 250
        i.wait_log("status=deferred", count=2)
        space = os.statvfs(mount)
        with open(mount / "ballast", "wb") as f:
            os.posix_fallocate(f.fileno(), 0, space.f_bavail * space.f_bsize - (4 << 20))
        wait(lambda: send(i, "u1@example.test")[0] == 452, 20, "452")  # it is measured once a second
        code, text = send(i, "u1@example.test")
        assert code == 452 and text.startswith("4.3.1")
        i.wait_log("queue-space-low")
        sink.usual = None
        sink.answers["bad@out.test"] = "550 5.1.1 no such user"
        i.tool("queue", "flush")
        sink.wait(1)
        (notice,) = wait(lambda: [m for m in i.messages("u1@example.test") if b"MAILER-DAEMON" in m], 30, "the notice")
        assert report_of(notice)[1][1].get_payload()[1]["Final-Recipient"] == "rfc822; bad@out.test"
        wait_empty(i)
        assert send(i, "u1@example.test")[0] == 452
        (mount / "ballast").unlink()
        wait(lambda: send(i, "u1@example.test")[0] == 250, 20, "250")
        wait_empty(i)
    finally:
        i.stop()
        subprocess.run(["umount", mount], check=True)


# --- no descriptors ---

def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def zygote(i, port):
    """The acceptor of a port."""
    argv = dict(i.processes())
    found = [p for p in i.pids("smtpd") if f"PPid:\t{i.process.pid}\n" in pathlib.Path(f"/proc/{p}/status").read_text()
             and any(f":{port}" in w for w in argv[p])]
    assert len(found) == 1
    return found[0]


def test_queue_short_of_descriptors(with_sink):  # noqa: F811
    """At 80 % of qmgr's descriptors no file is given: 452 4.3.1; small mail goes on, and what has a file ends well."""
    i, _ = with_sink(start=False, direct=False, main={"smtpd_client_connection_count_limit": "0", "direct_delivery_deadline": "10s"})
    i.command = ["prlimit", "--nofile=300"]
    i.start()
    files = 300 * 8 // 10 // 2
    line = b"x" * 70 + b"\r\n"
    begun = []
    for _ in range(files + 10):
        s = smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=60 * SLOW)
        begun.append(s)
        s.ehlo("client.test")
        s.mail("s@example.test")
        s.rcpt("u1@example.test")
        assert s.docmd("DATA")[0] == 354
        s.send(b"Subject: large\r\n\r\n" + line * 500)
    wait(lambda: status(i)["open_files"] == files, 30, f"{files} files")
    for n in range(5):
        assert send(i, "u1@example.test", f"Subject: small\r\n\r\nsmall {n}\r\n")[0] == 250
    answers = []
    for n, s in enumerate(begun):
        s.send(b"end %d\r\n.\r\n" % n)
        answers.append(s.getreply())
        s.close()
    assert {code for code, _ in answers} == {250, 452}
    assert sum(code == 250 for code, _ in answers) == files
    assert all(text.startswith(b"4.3.1") for code, text in answers if code == 452), answers
    stored = i.wait_messages("u1@example.test", files + 5, 30)
    ends = {int(m[1]) for m in (re.search(rb"\nend (\d+)\n", t) for t in stored) if m}
    assert ends == {n for n, (code, _) in enumerate(answers) if code == 250}
    wait_empty(i)
    assert send(i, "u1@example.test", "Subject: large again\r\n\r\n" + line.decode() * 500)[0] == 250


def cpu(pid):
    words = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_acceptor_without_descriptors(make_instance):
    """A client waits in the backlog, the acceptor tries now and then, other services go on; then the client is served."""
    i = make_instance()
    pid = zygote(i, i.port["smtp"])
    tracer = Strace(pid, "accept4:error=EMFILE:syscall=getpid")
    with socket.create_connection(("127.0.0.1", i.port["smtp"]), 60 * SLOW) as s:
        spent = cpu(pid)
        s.settimeout(1.5)
        with pytest.raises(TimeoutError):
            s.recv(100)
        assert cpu(pid) - spent < 0.5, "it spins"
        i.wait_log("accept.*(descriptor|Too many|too many)")
        with smtplib.SMTP("127.0.0.1", i.port["submission"], timeout=60 * SLOW) as other:
            assert other.noop()[0] == 250
        tracer.stop()
        s.settimeout(60 * SLOW)
        assert s.recv(100).startswith(b"220 ")


# --- many clients ---

class Trickle(threading.Thread):
    """n clients on a port; each says the hello, then gives a byte of the text a second, and never ends it."""

    def __init__(self, port, n, hello, text):
        super().__init__(daemon=True)
        self.over, self.text, self.closed, self.given = False, text, 0, 0
        self.sockets = [self.client(port, hello) for _ in range(n)]

    @staticmethod
    def client(port, hello):
        s = socket.create_connection(("127.0.0.1", port), 60 * SLOW)
        for line in hello:
            assert s.recv(4096)
            s.sendall(line + b"\r\n")
        if hello:
            assert s.recv(4096).startswith(b"354")
        return s

    def run(self):
        at = 0
        while not self.over:
            for s in list(self.sockets):
                try:
                    s.send(self.text[at % len(self.text):][:1])
                    self.given += 1
                except OSError:
                    self.sockets.remove(s)
                    self.closed += 1
            at += 1
            for _ in range(20):
                if not self.over:
                    time.sleep(0.05)

    def stop(self):
        self.over = True
        self.join()
        for s in self.sockets:
            s.close()


@pytest.fixture
def many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


CONTENT = (b"EHLO c", b"MAIL FROM:<s@far.test>", b"RCPT TO:<u1@example.test>", b"DATA")


@pytest.mark.parametrize("hello, text", [((), b"NOOP " + b"x" * 400), (CONTENT, b"Subject: " + b"x" * 400)], ids=["command", "content"])
def test_a_thousand_clients_trickle(make_instance, many_files, hello, text):
    i = make_instance(main={"smtpd_client_connection_count_limit": "0"})
    n = 1000 if SLOW == 1 or LONG else 300
    crowd = Trickle(i.port["smtp"], n, hello, text)
    wait(lambda: len([1 for line in i.log().splitlines() if "smtp-connect" in line]) >= n, 60, f"{n} connections")
    crowd.start()
    try:
        wait(lambda: crowd.given >= n, 60, "a byte of each")
        for k in range(20):
            assert send(i, "u1@example.test", f"Subject: among\r\n\r\nmessage {k}\r\n")[0] == 250
        wait(lambda: crowd.given >= 3 * n, 60, "more bytes")
        assert crowd.closed == 0
        assert len(i.wait_messages("u1@example.test", 20)) == 20
    finally:
        crowd.stop()
    # all of them are gone, and counted out
    wait(lambda: i.log().count("smtp-disconnect") >= n, 60, "the end of all")
    assert send(i, "u1@example.test")[0] == 250


@pytest.mark.parametrize("port, text", [("imap", b"a LOGIN " + b"x" * 400), ("pop3", b"USER " + b"x" * 200),
                                        ("submission", b"NOOP " + b"x" * 400)], ids=["imap", "pop3", "submission"])
def test_clients_that_trickle_before_login(make_instance, port, text):
    """As many as there are processes for the service, one each: they are sent away in time, mail and other logins go on."""
    i = make_instance(main={"login_timeout": "5s", "smtpd_timeout": "5s"}, override={port: {"default_process_limit": "40"}})
    crowd = Trickle(i.port[port], 40, (), text)
    crowd.start()
    try:
        assert send(i, "u1@example.test")[0] == 250
        other = imaplib.IMAP4_SSL("localhost", i.port["imaps"], ssl_context=i.tls(), timeout=60 * SLOW)
        assert other.login("u1@example.test", "pass1")[0] == "OK"
        other.logout()
        wait(lambda: crowd.closed == 40, 60, "the end of the crowd")
    finally:
        crowd.stop()
    with socket.create_connection(("127.0.0.1", i.port[port]), 60 * SLOW) as s:
        assert s.recv(100)[:2] in (b"* ", b"+O", b"22")


class Visitor(threading.Thread):
    """Connects, is greeted, leaves, again and again."""

    def __init__(self, port, n):
        super().__init__(daemon=True)
        self.port, self.n, self.bad = port, n, []

    def run(self):
        for k in range(self.n):
            try:
                with socket.create_connection(("127.0.0.1", self.port), 60 * SLOW) as s:
                    s.settimeout(60 * SLOW)
                    hello = s.recv(200)
                    if not hello.startswith(b"220 "):
                        self.bad.append(hello)
                    elif k % 3:  # each third just goes
                        s.sendall(b"QUIT\r\n")
                        s.recv(100)
            except OSError as e:
                self.bad.append(e)


def visit(i, n):
    """n connections, eight at a time, and mail beside them: how many messages."""
    visitors = [Visitor(i.port["smtp"], n // 8) for _ in range(8)]
    for v in visitors:
        v.start()
    sent = 0
    while any(v.is_alive() for v in visitors):
        assert send(i, "u1@example.test")[0] == 250
        sent += 1
        time.sleep(0.05)
    bad = sum((v.bad for v in visitors), [])
    assert not bad, (len(bad), bad[:5])
    return sent


def holdings(i):
    """What the processes of the suite hold: descriptors [(program, how many)], and {program: KiB of its largest process}."""
    files, memory = [], {}
    for pid, argv in [(i.process.pid, ["master"]), *i.processes()]:
        program = argv[0].rpartition("/")[2]
        try:
            text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
            files.append((program, descriptors(pid)))
        except OSError:
            continue  # it just ended
        # clean pages are those of a file, private or not as others run the same program just then
        own = sum(int(n) for n in re.findall(r"^Private_Dirty:\s+(\d+)", text, re.M))
        memory[program] = max(memory.get(program, 0), own)
    return sorted(files), memory


GROWTH = 256  # KiB that a process may have gained in the end: allocators settle, leaks do not


def test_many_connections_in_a_row(make_instance):
    """20,000 of them (2,000 in make check): each is greeted, mail goes on, nobody keeps a descriptor or memory."""
    i = make_instance(main={"local_child_idle_time": "1h"})
    total = 20000 if LONG else 2000
    sent = visit(i, total // 5)  # every child that it takes is there, every buffer was used
    files, memory = holdings(i)
    sent += visit(i, total)
    now = None

    def as_before():
        nonlocal now
        now = holdings(i)
        return now[0] == files

    try:
        wait(as_before, 30, "as many descriptors in as many processes")
    except AssertionError:
        pytest.fail(f"descriptors before: {files}\nafter: {now[0]}")
    grown = {program: now[1][program] - n for program, n in memory.items()}
    print(f"sent={sent} KiB gained: {grown}")
    if SLOW == 1:  # a sanitizer keeps what was freed
        assert max(grown.values()) <= GROWTH, grown
    assert sent > 3
    i.wait_messages("u1@example.test", sent)
    counted = re.findall(r"^smtpd\[.*\bconnections=(\d+)", i.tool("status").stdout, re.M)
    assert max(map(int, counted)) >= total + total // 5 + sent
