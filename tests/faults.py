"""Faults at system calls of a running daemon: kills and errors that strace injects, and the mail that goes on meanwhile.

A path is what a daemon does for one burst of messages: its calls are read from a trace in the same run, and each of them
is a point (name, n): the n-th call of that name in a thread. `make check` takes a fixed sample of the points,
BULKHEAD_LONG=1 all of them. A path of fewer than 20 calls, or a point that no burst reaches, fails the test.
"""
import collections
import contextlib
import datetime
import os
import re
import shutil
import signal
import smtplib
import subprocess
import threading
import time

import pytest

from instance import SLOW, queue_files, wait
from load import body_of, digest

LONG = bool(os.environ.get("BULKHEAD_LONG"))
LEAST = 20  # calls of a path
NEEDS = [
    pytest.mark.skipif(not shutil.which("strace"), reason="needs strace"),
    pytest.mark.skipif(os.geteuid() != 0, reason="traces processes of other users"),
    pytest.mark.skipif(SLOW != 1 and not LONG, reason="a sanitizer makes calls of its own"),
]
# Calls that a sanitizer or the C library makes when they like, and that change nothing.
NOISE = {"brk", "mmap", "munmap", "mprotect", "madvise", "getrandom", "sched_yield", "restart_syscall", "rt_sigreturn", "exit_group",
         "clock_nanosleep", "gettid", "clock_gettime"}


class Strace:
    """Injects into all threads of a process; stop() detaches. trace: the file that gets the calls."""

    def __init__(self, pid, *inject, trace=None):
        self.pid, self.trace = pid, trace
        words = ["strace", "-f", "-qq", "-o", trace or "/dev/null"]
        for what in inject:
            words += ["-e", f"inject={what}"]
        names = ",".join(sorted({what.partition(":")[0] for what in inject})) or "all"
        self.process = subprocess.Popen(words + ["-e", f"trace={names}", "-p", str(pid)], stderr=subprocess.DEVNULL)
        end = time.monotonic() + 10 * SLOW
        while time.monotonic() < end:
            try:
                tasks = os.listdir(f"/proc/{pid}/task")
                traced = [re.search(r"TracerPid:\t(\d+)", open(f"/proc/{pid}/task/{t}/status").read())[1] for t in tasks]
            except OSError:
                traced = ["0"]
                if self.process.poll() is not None:
                    return  # it died at once
            if all(t != "0" for t in traced):
                return
            time.sleep(0.01)
        raise AssertionError("strace did not attach")

    def dead(self):
        """The process was killed, and strace has seen it."""
        return self.process.poll() is not None

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.wait(20 * SLOW)


def path_of(trace):
    """The points of a trace, and how many calls it has."""
    threads = collections.defaultdict(collections.Counter)
    for thread, name in re.findall(r"^(\d+) +(?:[\d.]+ +)?(\w+)\(", open(trace).read(), re.M):
        if name not in NOISE:
            threads[thread][name] += 1
    most = collections.Counter()
    for calls in threads.values():
        most |= calls
    total = sum(sum(c.values()) for c in threads.values())
    return [(name, n) for name in sorted(most) for n in range(1, most[name] + 1)], total


def record(pid, act, trace):
    """The path of what act makes the process do."""
    s = Strace(pid, trace=str(trace))
    act()
    s.stop()
    points, total = path_of(trace)
    assert total >= LEAST, f"a path of {total} calls only: {points}"
    return points


def sample(points, n):
    """All of them in a long run; else n, spread evenly, the same ones each time."""
    if LONG or len(points) <= n:
        return points
    return [points[k * len(points) // n] for k in range(n)]


def explain(i, sink, lost):
    """What the log says of lost messages and what the sink said and heard around that time. lost: {digest: (recipient, reply)}.
    The whole record stands in the instance's folder."""
    out, log = [], i.log().splitlines()
    record = [f"{datetime.datetime.fromtimestamp(t, datetime.UTC):%H:%M:%S.%f} {where} {who} {text}" for t, where, who, text in sink.record] if sink else []
    (i.folder / "sink.log").write_text("\n".join(record))
    for key, (to, reply) in lost.items():
        out.append(f"{to} {key} {reply}")
        name = re.search(r"as (\w+)", reply)
        lines = [line for line in log if name and name[1] in line]
        out += lines + [line for line in record if key in line]
        for line in lines:
            if " status=sent" in line:
                at = datetime.datetime.fromisoformat(line.split()[0]) - datetime.timedelta(seconds=1)
                near = sorted(x for x in record if f"{at:%H:%M:%S}" <= x[:15] <= line[11:26])
                out += ["the sink in the second before:", *near[-60:]]
    return "\n".join(out)


class Traffic:
    """Messages of several kinds at once, each sent exactly once, remembered by the hash of its body.

    kinds: {name: (recipient, size)}. A kind whose recipient is of out.test is looked for at the sink, the others in the
    mailbox."""

    patience = 60  # seconds of a client
    box = "u1@example.test"  # whose mailbox
    options = ()  # of MAIL

    def __init__(self, i, sink=None, kinds=None, port="smtp", sender="s@example.test"):
        self.i, self.sink, self.port, self.sender = i, sink, port, sender
        self.kinds = kinds or {"small": ("u1@example.test", 100)}
        self.sent, self.acked, self.replies, self.codes = {}, {}, {}, collections.Counter()
        self.lock = threading.Lock()

    def one(self, kind):
        """The reply code of one message, 0 when the connection broke."""
        to, size = self.kinds[kind]
        body = f"{kind} {os.urandom(8).hex()}\r\n" + ("y" * 60 + "\r\n") * (size // 62)
        key, code = digest(body.encode()), 0
        with self.lock:
            self.sent[key] = to
        try:
            code, text = self.hand_in(to, f"Subject: {key}\r\n\r\n{body}")
            self.last = text.decode()
            if code == 250:
                with self.lock:
                    self.acked[key] = to
                    self.replies[key] = text.decode()
        except smtplib.SMTPResponseException as e:
            code = e.smtp_code
        except (OSError, smtplib.SMTPException) as e:
            self.broken = repr(e)
        with self.lock:
            self.codes[code] += 1
        return code

    def hand_in(self, to, text):
        with smtplib.SMTP("127.0.0.1", self.i.port[self.port], timeout=self.patience * SLOW) as s:
            s.ehlo("client.test")
            for answer in (lambda: s.mail(self.sender, self.options), lambda: s.rcpt(to), lambda: s.data(text)):
                code, said = answer()
                if code >= 400:
                    break
            return code, said

    def burst(self, *kinds):
        threads = [threading.Thread(target=self.one, args=(k,), daemon=True) for k in kinds or self.kinds]
        for t in threads:
            t.start()
        for t in threads:
            t.join(90 * SLOW)
            assert not t.is_alive(), "a client still waits"

    def until_taken(self, kind=None):
        """One message after the other until one is acknowledged: the suite is in order again."""
        wait(lambda: self.one(kind or next(iter(self.kinds))) == 250, 30, "an acknowledgement")

    def near(self):
        return collections.Counter(digest(body_of(m)) for m in self.i.messages(self.box))

    def far(self):
        if not self.sink:
            return collections.Counter()
        return collections.Counter(digest(body_of(m.content)) for m in list(self.sink.messages))

    def settle(self, seconds=60):
        """Until the queue is empty."""
        def empty():
            self.i.tool("queue", "flush", check=False)
            return not queue_files(self.i)

        wait(empty, seconds, "an empty queue")

    def check(self, retries=False):
        """Compares the sets; the number of second copies at the next hop. retries: who hands in tries again when it has heard
        nothing, as every client of SMTP does, so there may be second copies in the mailbox too."""
        near, far = self.near(), self.far()
        lost = {k: v for k, v in self.acked.items() if not (far if v.endswith("out.test") else near)[k]}
        foreign = [k for k in near + far if k not in self.sent]
        assert not lost, f"{len(lost)} of {len(self.acked)} lost, {len(foreign)} that nobody sent {foreign[:5]}:\n" + explain(
            self.i, self.sink, {k: (v, self.replies[k]) for k, v in lost.items()})
        assert not foreign, f"{len(foreign)} are not what was sent"
        for m in list(self.sink.messages) if self.sink else ():
            to = self.sent[digest(body_of(m.content))]
            assert m.content.startswith(b"Received: ") and m.recipients == [to], (to, m.recipients, m.content[:200])
        twice = [k for k, n in near.items() if n > 1]
        assert retries or not twice, f"{len(twice)} of {len(near)} twice in the mailbox"
        return sum(n - 1 for n in (far + near if retries else far).values())


def limit(pid, **limits):
    """prlimit as the process's own user, which needs no capability: limit(pid, fsize=512). Soft limits."""
    uid, gid = (re.search(rf"^{w}:\t(\d+)", open(f"/proc/{pid}/status").read(), re.M)[1] for w in ("Uid", "Gid"))
    words = [f"--{name}={value}:" for name, value in limits.items()]
    subprocess.run(["setpriv", "--reuid", uid, "--regid", gid, "--clear-groups", "prlimit", "--pid", str(pid), *words],
                   check=False, stderr=subprocess.DEVNULL)  # it may have died


@contextlib.contextmanager
def small_files(pid, size=512):
    """RLIMIT_FSIZE of a running process, and back to what it was."""
    before = re.search(r"^Max file size +(\w+)", open(f"/proc/{pid}/limits").read(), re.M)[1]
    limit(pid, fsize=size)
    try:
        yield
    finally:
        limit(pid, fsize=before)


def child_of(i, role, word=""):
    """A process that a zygote made, not master. word: what its command line has."""
    def look():
        try:
            return [p for p, argv in i.processes() if argv[0].rpartition("/")[2] == role and word in " ".join(argv) and f"\nPPid:\t{i.process.pid}\n" not in open(f"/proc/{p}/status").read()]
        except OSError:
            return []

    return wait(look, 30, f"a child of {role}")[0]


def kill_at(i, role, point, traffic, trace, pid=None):
    """Kills the daemon (or that process) at that point of its path while bursts go on; it is back when this returns."""
    name, n = point
    pid = pid or i.pids(role)[0]
    s = Strace(pid, f"{name}:signal=KILL:when={n}", trace=str(trace))
    end = time.monotonic() + 40 * SLOW
    while not s.dead():
        if time.monotonic() > end:
            s.stop()
            raise AssertionError(f"{role} never came to call {n} of {name}")
        traffic.burst()
        try:  # some work is done after the answer
            s.process.wait(0.3)
        except subprocess.TimeoutExpired:
            pass
    assert "+++ killed by SIGKILL +++" in open(trace).read(), point
    wait(lambda: [p for p in i.pids(role) if p != pid], 30, f"{role} again")
