"""The OpenMetrics endpoint: off by default, loopback unless told otherwise, read only, true to what happened."""
import os
import pathlib
import re
import select
import shutil
import signal
import smtplib
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest

from instance import BIN, SLOW, wait
from test_control import asked_while_one_dies
from test_ipc import BY_NAME, encode_with
from test_ipc import send as send_ipc
from test_skeleton import steal_socket

ROW = "metrics unix n - y - 1 metrics"


class Numbers:
    """What curl gets: numbers by family and labels."""

    def __init__(self, url):
        done = subprocess.run(["curl", "-sS", "-i", "--max-time", "20", url], capture_output=True, text=True, check=True)
        head, _, self.text = done.stdout.replace("\r\n", "\n").partition("\n\n")
        assert head.startswith("HTTP/1.1 200 OK\n"), head
        assert "\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8" in head
        assert self.text.endswith("\n# EOF\n")
        self.values = {}
        for line in self.text.splitlines():
            m = re.fullmatch(r'(\w+)\{program="([^"]*)",service="([^"]*)"(?:,name="([^"]*)")?\} (\d+)', line)
            assert m or line.startswith("# "), line
            if m:
                self.values[m[1], m[2], m[4]] = self.values.get((m[1], m[2], m[4]), 0) + int(m[5])

    def get(self, family, program, name=None):
        return self.values[f"bulkhead_{family}", program, name]


@pytest.fixture
def served(make_instance):
    i = make_instance(start=False)
    i.extra_rows = [ROW]
    i.set(metrics_listen=f"127.0.0.1:{i.port['sink']}")
    i.start()
    return i


def url(i):
    return f"http://127.0.0.1:{i.port['sink']}/metrics"


def send(i, n=1, to="u1@example.test"):
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=20 * SLOW) as s:
        for _ in range(n):
            s.sendmail("a@sender.example", [to], b"Subject: x\r\n\r\nbody\r\n")


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
def test_counters(served):
    before = Numbers(url(served))
    for program in ("smtpd", "qmgr", "auth", "log", "metrics", "imapd", "maps"):
        assert before.get("processes", program) >= 1
    send(served, 3)
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send(served, to="nobody@example.test")
    served.wait_messages("u1@example.test", 3)
    after = Numbers(url(served))
    grown = {k: v - before.values.get(k, 0) for k, v in after.values.items()}
    assert grown["bulkhead_connections_total", "smtpd", None] == 2
    assert grown["bulkhead_messages_received_total", "smtpd", None] == 3  # counted by its children
    assert grown["bulkhead_recipients_rejected_total", "smtpd", None] == 1
    assert grown["bulkhead_deliveries_total", "qmgr", None] == 3
    assert after.get("state", "qmgr", "messages") == 0
    served.allow_deaths = True
    os.kill(served.pids("maps")[0], signal.SIGKILL)
    end = time.monotonic() + 10 * SLOW
    while Numbers(url(served)).get("processes", "maps") != 1:
        assert time.monotonic() < end
        time.sleep(0.1)


def switches(i):
    """How often the threads of each process have gone to sleep so far."""
    found = {}
    for pid, _ in i.processes():
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            text = (task / "status").read_text()
            found[task.name] = int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", text, re.M)[1])
    return found


@pytest.mark.skipif("tsan" in str(BIN), reason="TSan's runtime has a thread of its own, which wakes up")
def test_who_has_nothing_to_do_sleeps(instance):
    send(instance, 3)
    instance.wait_messages("u1@example.test", 3)
    before = None

    def still():
        nonlocal before
        time.sleep(1.5)
        now, before = before, switches(instance)
        return now == before

    wait(still, 30, "an end of all wake-ups")


def lag(i, program):
    values = [re.search(r"loop_lag_max_us=(\d+)", line) for line in i.tool("status", check=False).stdout.splitlines()
              if line.startswith(program + "[")]
    return max(int(m[1]) if m else 0 for m in values)


@pytest.mark.parametrize("program", ["qmgr", "log"])
def test_lag_of_the_loop(served, program):
    """A daemon that was stopped for a second while mail came tells it: in status, in the metrics, in the log."""
    send(served)
    (pid,) = served.pids(program)
    before = lag(served, program)
    assert before < 800000
    over = threading.Event()

    def go_on():
        while not over.is_set():
            send(served)

    client = threading.Thread(target=go_on)
    client.start()
    try:
        for _ in range(10):  # between two of its probes a stop is not seen
            time.sleep(0.3)
            os.kill(pid, signal.SIGSTOP)
            time.sleep(1.2)
            os.kill(pid, signal.SIGCONT)
            if wait(lambda: lag(served, program), 10) > 1000000:
                break
    finally:
        over.set()
        client.join()
    assert lag(served, program) > 1000000
    numbers = Numbers(url(served))
    assert numbers.get("loop_lag_max_us", program) > 1000000 and numbers.get("loop_late_total", program) >= 1
    served.wait_log(f"{program}.* loop-stalled ms=1[0-9]{{3}} .*remedy=")


def ask(i, request, seconds=15, address="127.0.0.1"):
    with socket.create_connection((address, i.port["sink"]), 10 * SLOW) as s:
        s.settimeout(seconds * SLOW)
        s.sendall(request)
        out = b""
        while data := s.recv(65536):
            out += data
        return out


def test_requests(served):
    assert ask(served, b"GET /metrics HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert ask(served, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"\r\n\r\n")
    assert ask(served, b"GET /../etc/passwd HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 404 ")
    assert ask(served, b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc").startswith(b"HTTP/1.1 405 ")
    assert ask(served, b"\x16\x03\x01\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert ask(served, b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 4070).startswith(b"HTTP/1.1 431 ")


def test_silent_clients_do_not_stay(served):
    idle = [socket.create_connection(("127.0.0.1", served.port["sink"]), 10 * SLOW) for _ in range(40)]
    began = time.monotonic()
    for s in idle:
        s.settimeout(30 * SLOW)
        assert s.recv(1) == b""  # those beyond the limit at once, the others after a while
    assert time.monotonic() - began < 25 * SLOW
    assert ask(served, b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_off_by_default_and_by_reload(make_instance):
    i = make_instance(start=False)
    i.extra_rows = [ROW]
    i.write()
    i.start()
    assert not i.pids("metrics")
    i.set(metrics_listen=f"127.0.0.1:{i.port['sink']}")
    i.reload()
    i.wait_ready()
    assert ask(i, b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    i.set(metrics_listen=f"127.0.0.2:{i.port['sink']}")
    i.reload()
    assert ask(i, b"GET / HTTP/1.1\r\n\r\n", address="127.0.0.2").startswith(b"HTTP/1.1 200 ")
    i.set(metrics_listen="")
    i.reload()
    end = time.monotonic() + 5 * SLOW
    while i.pids("metrics"):
        assert time.monotonic() < end
        time.sleep(0.05)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", i.port["sink"]), 5)


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
def test_a_service_with_a_long_name(make_instance):
    """As long as master.cf lets it be: its numbers are its own, and those behind it too."""
    i = make_instance(start=False)
    name = "d" * 128
    i.set(metrics_listen=f"127.0.0.1:{i.port['sink']}")
    i.extra_rows = [ROW]
    i.write()
    etc = i.etc / "master.cf"
    etc.write_text(etc.read_text().replace("\ndns unix", f"\n{name} unix"))
    i.start()
    send(i)
    i.wait_messages("u1@example.test")
    n = Numbers(url(i))
    assert f'program="dns",service="{name}"' in n.text
    assert n.get("deliveries_total", "qmgr") == 1
    etc.write_text(etc.read_text().replace(name, name + "d"))
    done = i.tool("reload", check=False)
    assert done.returncode == 1 and "has more than 128 bytes: shorten it" in done.stdout


FLOOD = """#!{python}
import socket, struct
s = socket.socket(fileno=3)
s.settimeout(3)
try:
    for n in range(50000):
        s.send(struct.pack("<HI", {number}, n + 1))
    said = "heard"
except TimeoutError:
    said = "held"
open("{out}", "w").write(said)
while True:
    s.settimeout(None)
    s.send(struct.pack("<HI", {number}, 1))
"""


def test_who_asks_and_does_not_read_is_not_heard(make_instance, tmp_path):
    """A metrics daemon that was taken over: master keeps no more than a bounded number of answers for it."""
    programs, out = tmp_path / "bin", tmp_path / "said"
    shutil.copytree(BIN, programs, symlinks=True)
    (programs / "metrics").unlink()
    (programs / "metrics").write_text(FLOOD.format(python=sys.executable, number=BY_NAME["metrics_get"].number, out=out))
    (programs / "metrics").chmod(0o755)
    for d in programs, tmp_path:
        d.chmod(0o755)
    i = make_instance(start=False, allow_deaths=True, main={"daemon_directory": programs})
    i.set(metrics_listen=f"127.0.0.1:{i.port['sink']}")
    i.extra_rows = [ROW]
    i.write()
    i.start(wait=False)
    wait(lambda: out.exists() and out.read_text(), 60, "its word")
    assert out.read_text() == "held"
    send(i)
    i.wait_messages("u1@example.test", 1, 20)


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
def test_nobody_waits_for_the_dead(served):
    served.allow_deaths = True
    out, _ = asked_while_one_dies(served, ["curl", "-s", url(served)])
    assert 'program="qmgr"' in out and out.endswith("# EOF\n"), out


@pytest.mark.skipif(os.geteuid() != 0, reason="takes descriptors of other processes")
def test_nobody_answers_twice(served):
    """Who asks all daemons waits a second for each of them, whatever another one says that was taken over."""
    forger, silent = served.pids("pickup")[0], served.pids("qmgr")[0]
    tool = [BIN / "bulkhead", "-c", served.etc]
    with socket.socket(fileno=steal_socket(forger, 3)) as s:
        for pid in forger, silent:
            os.kill(pid, signal.SIGSTOP)
        try:
            ident = 0
            for words in [*tool, "status"], [*tool, "reload"], ["curl", "-s", url(served)]:
                began = time.monotonic()
                asking = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                assert ident or select.select([s], [], [], 30 * SLOW)[0], "no question came"
                ident = ident + 1 if ident else struct.unpack_from("<HI", s.recv(65536, socket.MSG_PEEK))[1]
                while asking.poll() is None:
                    send_ipc(s, encode_with("stats", ident))
                assert time.monotonic() - began >= 1, (words, asking.stdout.read())
        finally:
            for pid in forger, silent:
                os.kill(pid, signal.SIGCONT)
    assert "qmgr[qmgr]: no answer" not in served.tool("status").stdout
