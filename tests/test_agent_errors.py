"""Errors of the disk, of descriptors and of memory at each call of the daemons around qmgr: the right 4xx, a line in the log
that names the thing, the reason and the remedy, the daemon lives or is started again, nothing acknowledged is lost.

The calls of a path are read from a trace in the same run: each must have its rows in the table of its daemon, and each row
must be hit.
"""
import collections
import os
import re

import pytest

import faults
from faults import Strace, child_of, sample
from instance import SLOW
from test_agent_faults import LOCAL, OFTEN, ByCommand
from test_commit_faults import finish, relaying  # noqa: F401 (a fixture)
from test_queue_errors import TEXTS as DISK

pytestmark = faults.NEEDS
TEXTS = {**DISK, "ECONNREFUSED": "Connection refused", "ENETUNREACH": "Network is unreachable", "ECONNRESET": "Connection reset by peer",
         "ENOBUFS": "No buffer space available", "EPIPE": "Broken pipe", "EINTR": "Interrupted system call"}
QUICK = {"policy_timeout": "3s", "service_throttle_time": "100ms", "minimal_backoff_time": "1h", "maximal_backoff_time": "1h"}
# Rows: the call, its errors, and what the log says of each, a pattern in which ERROR is the text of the error. None: what is
# done goes on as if nothing were, or the process is started again (which master says).
LINE, PUT_OFF = r" (?:error|warning): .*ERROR.*remedy=", r" delivery .*status=deferred dsn=4\.\d\.\d .*ERROR"
NOTHING = ("getpid", "close", "setsockopt", "getsockname", "getsockopt", "fcntl", "epoll_wait")  # no error of these says anything


def rows(table):
    return [(call, error, told) for call, errors, told in table for error in errors.split()]


class Errors:
    """One daemon's matrix."""

    def __init__(self, i, process, act, tmp_path, allowed):
        self.i, self.process, self.act, self.tmp, self.allowed = i, process, act, tmp_path, allowed
        self.codes, self.hit = collections.Counter(), 0

    def path(self, table):
        """The rows, when they fit the calls of this path."""
        s = Strace(self.process(), trace=str(self.tmp / "path"))
        self.act(True)
        s.stop()
        points, total = faults.path_of(self.tmp / "path")
        assert total >= faults.LEAST, points
        used, named = {name for name, _ in points} - set(NOTHING), {call for call, *_ in rows(table)}
        assert used == named, f"without rows: {used - named}; not on the path: {named - used}"
        return rows(table)

    def one(self, traffic, call, error, told):
        pid, before, log = self.process(), traffic.codes.copy(), len(self.i.log())
        # Who cannot hear at all for want of memory takes nothing, and its clients wait: a shortage passes.
        passing = ":when=1..3" if call == "recvmmsg" else ""
        s = Strace(pid, f"{call}:error={error}:syscall=getpid{passing}", trace=str(self.tmp / "trace"))

        def hit():
            return "(INJECTED)" in (self.tmp / "trace").read_text(errors="replace")

        def once():
            self.act(False)
            return hit()

        try:
            faults.wait(once, 40, f"{call} {error}")
            if told:
                self.told(log, told.replace("ERROR", TEXTS[error]), f"{call} {error}")
        finally:
            s.stop()
        new = traffic.codes - before
        self.codes += new
        assert not new.keys() - self.allowed, (call, error, new, getattr(traffic, "last", ""), getattr(traffic, "broken", ""))
        self.i.wait_ready(60)
        self.hit += 1

    def told(self, log, pattern, what):
        try:
            faults.wait(lambda: re.search(pattern, self.i.log()[log:]), 10, "word")
        except AssertionError:
            raise AssertionError(f"no word of {what} ({pattern}):\n{self.i.log()[log:][-6000:]}") from None

    def all(self, traffic, table, n, after):
        wrong = []
        for call, error, told in sample(self.path(table), n):
            try:
                self.one(traffic, call, error, told)
            except AssertionError as e:
                wrong.append(str(e))
            after(f"{call} {error}")
        assert not wrong, "\n----\n".join(wrong)
        print(f"errors={self.hit} answers={dict(self.codes)} acknowledged={len(traffic.acked)} of {len(traffic.sent)}")


CLIENT = [
    ("socket", "EMFILE ENFILE ENOMEM ENOBUFS", r" delivery .*status=deferred dsn=4\.3\.0 .*ERROR here; raise the limits"),
    ("connect", "ECONNREFUSED ENETUNREACH", PUT_OFF + ".*remedy="),
    ("connect", "ENOBUFS", r" delivery .*status=deferred dsn=4\.3\.0 .*ERROR here; raise the limits"),
    ("pread64", "EIO", PUT_OFF),
    ("recvfrom", "ECONNRESET EIO", r" delivery .*status=deferred dsn=4\.4\.2 .*lost connection.*remedy="),
    ("write", "EPIPE ECONNRESET EIO", None),
    ("epoll_ctl", "ENOMEM ENOSPC", None),
    ("recvmmsg", "ENOMEM ENOBUFS", None),
    ("sendto", "ENOBUFS EIO", None),
]


def test_smtp_client(relaying, tmp_path):  # noqa: F811
    i, traffic = relaying(**OFTEN, **{**QUICK, "smtp_connection_cache_time_limit": "0s"})
    traffic.kinds = {f"{k}{n}": v for k, v in traffic.kinds.items() if k.startswith("out") for n in "12"}

    def act(whole):
        before = len(traffic.sink.messages)
        traffic.burst()
        if whole:
            faults.wait(lambda: len(traffic.sink.messages) >= before + len(traffic.kinds), 30, "the messages at the sink")

    def arrived():
        i.tool("queue", "flush", check=False)  # again: it may be put off only now
        return {k for k, to in traffic.acked.items() if to != "later@out.test" and to.endswith("out.test")} <= set(traffic.far())

    def after(what=""):
        faults.wait(arrived, 60, f"what was put off by {what}")

    errors = Errors(i, lambda: i.pids("smtp-client")[0], act, tmp_path, {250})
    errors.all(traffic, CLIENT, 6, after)
    print("second copies:", finish(traffic))


BOUNCE = [
    ("pread64", "EIO", LINE),
    ("recvmmsg", "ENOMEM ENOBUFS", None),
    ("sendto", "ENOBUFS ENOMEM EIO", None),
]


def test_bounce(relaying, tmp_path):  # noqa: F811
    """A notice that cannot be made now is made later: each sender hears, whatever failed."""
    i, traffic = relaying(**OFTEN, **QUICK)
    traffic.sink.answers["bad@out.test"] = "550 5.1.1 nobody"
    traffic.kinds = {f"bad{n}": ("bad@out.test", 40000 if n % 2 else 100) for n in range(6)}
    traffic.sender = "u1@example.test"

    def heard():
        """Each notice has the queue ID, also where the message itself could not be read."""
        i.tool("queue", "flush", check=False)
        due = {re.search(r"as (\w+)", traffic.replies[k])[1] for k, to in traffic.acked.items() if to == "bad@out.test"}
        told = b"".join(m for m in i.messages("u1@example.test") if b"multipart/report" in m)
        return all(name.encode() in told for name in due)

    def act(whole):
        traffic.burst()
        if whole:
            faults.wait(heard, 30, "the notices")

    errors = Errors(i, lambda: i.pids("bounce")[0], act, tmp_path, {250})
    errors.all(traffic, BOUNCE, 3, lambda what: faults.wait(heard, 60, f"the notices after {what}"))
    traffic.sink.answers.clear()
    traffic.settle()


RECEIVER = [
    ("read", "ECONNRESET EIO", None),
    ("write", "EPIPE ECONNRESET EIO ENOSPC EDQUOT", None),
    ("epoll_ctl", "ENOMEM ENOSPC", None),
    ("recvmmsg", "ENOMEM ENOBUFS", None),
    ("sendto", "ENOBUFS EIO", None),
]


def test_smtpd(relaying, tmp_path):  # noqa: F811
    """The client hears 4xx, or its connection ends; then it tries again, as this one does."""
    i, traffic = relaying(**QUICK)
    traffic.kinds = {"small": ("u1@example.test", 100), "large": ("u1@example.test", 40000)}
    traffic.patience = 8  # while the error lasts, some hear nothing

    def child():
        return child_of(i, "smtpd", f":{i.port['smtp']}")

    errors = Errors(i, child, lambda whole: traffic.burst(), tmp_path, {250, 451, 452, 421, 0})
    errors.all(traffic, RECEIVER, 6, lambda what: traffic.until_taken("large"))
    finish(traffic)


def test_submission(make_instance, tmp_path):
    """sendmail(1) leaves in maildrop/ what it could not hand in, or says so."""
    i = make_instance(direct=False, allow_deaths=True, main={**QUICK, "submission_sessions_per_process": "100"})
    traffic = ByCommand(i, None, LOCAL)
    traffic.burst()
    errors = Errors(i, lambda: child_of(i, "submission", "--service submit"), lambda whole: traffic.burst(), tmp_path, {250, os.EX_TEMPFAIL})
    errors.all(traffic, RECEIVER, 4, lambda what: traffic.until_taken("large"))
    faults.wait(lambda: not [p for p in (i.spool / "maildrop").iterdir() if not p.name.startswith(".")], 90, "an empty maildrop")
    traffic.settle()
    print("second copies:", traffic.check(retries=True))


PICKUP = [
    ("getdents64", "EIO ENOMEM", LINE),
    ("openat", "EIO EMFILE ENFILE ENOMEM", LINE),
    ("newfstatat", "EIO ENOMEM", LINE),
    ("read", "EIO", LINE),
    ("write", "EIO ENOSPC EDQUOT EROFS", LINE),
    ("unlinkat", "EIO EROFS", LINE),
    ("recvmmsg", "ENOMEM ENOBUFS", None),
    ("sendto", "ENOBUFS EIO", None),
]


def test_pickup(make_instance, tmp_path):
    """What was left in maildrop/ stays there until it is in the queue, and comes once."""
    i = make_instance(direct=False, allow_deaths=True, main=QUICK)
    alone = tmp_path / "etc"  # of an instance that is down, with the same maildrop
    alone.mkdir()
    (alone / "main.cf").write_text((i.etc / "main.cf").read_text() + f"run_directory = {tmp_path}/nowhere\n")
    (alone / "master.cf").write_text((i.etc / "master.cf").read_text())
    traffic = ByCommand(i, None, LOCAL)
    traffic.etc = alone

    def there():
        i.tool("queue", "flush", check=False)
        return set(traffic.acked) <= set(traffic.near())

    def act(whole):
        traffic.burst()
        if whole:
            faults.wait(there, 30, "what was left there")

    def after(what):
        traffic.one("small")  # a new file, so that the folder is looked at again
        faults.wait(there, 90, f"what {what} kept in maildrop")

    errors = Errors(i, lambda: i.pids("pickup")[0], act, tmp_path, {250})
    errors.all(traffic, PICKUP, 5, after)
    faults.wait(lambda: not [p for p in (i.spool / "maildrop").iterdir()], 90, "an empty maildrop")
    traffic.settle()
    traffic.check()


# Which call of that name, counted from the last: of the file under its first name, and of the sync after the rename.
SENDMAIL = [("openat", 3, "EIO ENOSPC EROFS EMFILE ENFILE EDQUOT"), ("openat", 2, "EIO EMFILE ENFILE"), ("fchmod", 1, "EIO EROFS"),
            ("write", 2, "EIO ENOSPC EDQUOT"), ("write", 1, "EIO ENOSPC EDQUOT"), ("fsync", 3, "EIO ENOSPC EDQUOT EROFS"),
            ("fsync", 2, "EIO ENOSPC EDQUOT EROFS"), ("rename", 1, "EIO ENOSPC EROFS EDQUOT")]


def test_sendmail(make_instance, tmp_path):
    """While the suite is down: what cannot be written to maildrop/ is said, with 75 (EX_TEMPFAIL), and nothing is left there."""
    i = make_instance(direct=False, allow_deaths=True)
    i.stop()
    traffic = ByCommand(i, None, {"small": ("u1@example.test", 100)})
    maildrop = i.spool / "maildrop"
    traffic.trace = str(tmp_path / "path")
    assert traffic.one("small") == 250
    points, total = faults.path_of(traffic.trace)
    assert total >= faults.LEAST
    left, tried = set(maildrop.iterdir()), 0
    for call, back, error in sample([(c, b, e) for c, b, errors in SENDMAIL for e in errors.split()], 8):
        traffic.inject = f"{call}:error={error}:when={max(n for name, n in points if name == call) - back + 1}"
        code = traffic.one("small")
        assert "(INJECTED)" in (tmp_path / "path").read_text(), (call, back)
        assert code == os.EX_TEMPFAIL and TEXTS[error] in traffic.last, (call, back, error, code, traffic.last)
        assert set(maildrop.iterdir()) == left, (call, back, error)
        tried += 1
    traffic.inject, traffic.trace = None, None
    i.start()
    traffic.until_taken("small")
    traffic.settle()
    traffic.check()
    print(f"errors={tried}")
