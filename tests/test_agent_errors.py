"""Errors of the disk, of descriptors and of memory at each call of the daemons around qmgr: the right 4xx, a line in the log
that names the thing, the reason and the remedy, the daemon lives or is started again, nothing acknowledged is lost.

The calls of a path are read from a trace in the same run: each must have its rows in the table of its daemon, and each row
must be hit.
"""
import collections
import os
import re

import pytest

import agents
import faults
from agents import ByCommand, ByLogin
from faults import Strace, sample
from test_commit_faults import finish, relaying  # noqa: F401 (a fixture)
from test_queue_errors import TEXTS as DISK

pytestmark = faults.NEEDS
TEXTS = {**DISK, "ECONNREFUSED": "Connection refused", "ENETUNREACH": "Network is unreachable", "ECONNRESET": "Connection reset by peer",
         "ENOBUFS": "No buffer space available", "EPIPE": "Broken pipe", "EINTR": "Interrupted system call"}
PATIENT = {"policy_timeout": "3s"}
EACH = ("EIO", "ENOSPC", "EROFS", "EMFILE", "ENFILE", "EDQUOT")  # what a disk and a table of descriptors give
# Rows: the call, its errors, and what the log says of each, a pattern in which ERROR is the text of the error. None: what is
# done goes on as if nothing were, or the process is started again (which master says).
LINE, PUT_OFF = r" (?:error|warning): .*ERROR.*remedy=", r" delivery .*status=deferred dsn=4\.\d\.\d .*ERROR"
NOTHING = ("getpid", "close", "setsockopt", "getsockname", "getsockopt", "fcntl", "epoll_wait")  # no error of these says anything


def rows(table):
    return [(call, error, told) for call, errors, told in table for error in errors.split()]


class Errors:
    """One daemon's matrix."""

    def __init__(self, agent, tmp_path, allowed):
        self.agent, self.i, self.traffic, self.tmp, self.allowed = agent, agent.i, agent.traffic, tmp_path, allowed
        self.codes, self.hit = collections.Counter(), 0

    def path(self, table, matrix):
        """The rows, when they fit the calls of this path. matrix: also every error of EACH at every call, where any answer that is
        allowed will do."""
        s = Strace(self.agent.pid(), trace=str(self.tmp / "path"))
        self.agent.act(whole=True)
        s.stop()
        points, total = faults.path_of(self.tmp / "path")
        assert total >= faults.LEAST, points
        calls = {name for name, _ in points}
        used, named = calls - set(NOTHING), {call for call, *_ in rows(table)}
        assert used == named, f"without rows: {used - named}; not on the path: {named - used}"
        told = {(call, error): told for call, error, told in rows(table)}
        if matrix:  # getpid is what is called in the place of another
            told = {**{(call, error): None for call in sorted(calls - {"getpid"}) for error in EACH}, **told}
        return [(call, error, words) for (call, error), words in told.items()]

    def one(self, call, error, told):
        pid, before, log = self.agent.pid(), self.traffic.codes.copy(), len(self.i.log())
        # Who cannot hear at all for want of memory takes nothing, and its clients wait: a shortage passes.
        passing = ":when=1..3" if call == "recvmmsg" else ""
        s = Strace(pid, f"{call}:error={error}:syscall=getpid{passing}", trace=str(self.tmp / "trace"))

        def hit():
            self.agent.act()
            return "(INJECTED)" in (self.tmp / "trace").read_text(errors="replace")

        try:
            faults.wait(hit, 40, f"{call} {error}")
            if told:
                self.told(log, told.replace("ERROR", TEXTS[error]), f"{call} {error}")
        finally:
            s.stop()
        new = self.traffic.codes - before
        self.codes += new
        assert not new.keys() - self.allowed, (call, error, new, getattr(self.traffic, "last", ""), getattr(self.traffic, "broken", ""))
        self.i.wait_ready(60)
        self.hit += 1

    def told(self, log, pattern, what):
        try:
            faults.wait(lambda: re.search(pattern, self.i.log()[log:]), 10, "word")
        except AssertionError:
            raise AssertionError(f"no word of {what} ({pattern}):\n{self.i.log()[log:][-6000:]}") from None

    def all(self, table, n, after, matrix=False):
        """matrix: in a long run the whole one; else n rows of the table."""
        wrong = []
        for call, error, told in sample(self.path(table, matrix and faults.LONG), n):
            try:
                self.one(call, error, told)
            except AssertionError as e:
                wrong.append(str(e))
            after(f"{call} {error}")
        assert not wrong, "\n----\n".join(wrong)
        print(f"errors={self.hit} answers={dict(self.codes)} acknowledged={len(self.traffic.acked)} of {len(self.traffic.sent)}")


CLIENT = [
    ("socket", "EMFILE ENFILE ENOMEM ENOBUFS", r" delivery .*status=deferred dsn=4\.3\.0 .*ERROR here; raise the limits"),
    ("connect", "ECONNREFUSED ENETUNREACH", PUT_OFF + ".*remedy="),
    ("connect", "ENOBUFS", r" delivery .*status=deferred dsn=4\.3\.0 .*ERROR here; raise the limits"),
    ("pread64", "EIO", PUT_OFF),
    ("recvfrom", "ECONNRESET EIO", r" delivery .*status=deferred dsn=4\.4\.2 .*lost connection.*remedy="),
    ("write", "EPIPE ECONNRESET EIO", None),
    ("epoll_ctl", "ENOMEM ENOSPC", r" process-failed .*cannot be watched: .*ERROR"),
    ("recvmmsg", "ENOMEM ENOBUFS", None),
    ("sendto", "ENOBUFS EIO", None),
]


def test_smtp_client(relaying, tmp_path):  # noqa: F811
    a = agents.smtp_client(relaying, **PATIENT, smtp_connection_cache_time_limit="0s")
    errors = Errors(a, tmp_path, {250})
    errors.all(CLIENT, 6, lambda what: faults.wait(a.flushed, 60, f"what was put off by {what}"))
    print("second copies:", finish(a.traffic))


BOUNCE = [
    ("pread64", "EIO", LINE),
    ("write", "EIO ENOSPC EDQUOT", r" notice-failed .*the notice cannot be written: ERROR"),
    ("recvmmsg", "ENOMEM ENOBUFS", None),
    ("sendto", "ENOBUFS ENOMEM EIO", None),
]


def test_bounce(relaying, tmp_path):  # noqa: F811
    """A notice that cannot be made now is made later: each sender hears, whatever failed."""
    a = agents.bounce(relaying, **PATIENT)
    errors = Errors(a, tmp_path, {250})
    errors.all(BOUNCE, 3, lambda what: faults.wait(a.flushed, 60, f"the notices after {what}"))
    a.traffic.sink.answers.clear()
    a.traffic.settle()


RECEIVER = [
    ("read", "ECONNRESET EIO", None),
    ("write", "EPIPE ECONNRESET EIO ENOSPC EDQUOT", None),
    ("epoll_ctl", "ENOMEM ENOSPC", r" process-failed .*cannot be watched: .*ERROR"),
    ("recvmmsg", "ENOMEM ENOBUFS", None),
    ("sendto", "ENOBUFS EIO", None),
]


def test_smtpd(relaying, tmp_path):  # noqa: F811
    """The client hears 4xx, or its connection ends; then it tries again, as this one does."""
    a = agents.smtpd(relaying, **PATIENT)
    a.traffic.patience = 8  # while the error lasts, some hear nothing
    errors = Errors(a, tmp_path, {250, 451, 452, 421, 0})
    errors.all(RECEIVER, 6, lambda what: a.traffic.until_taken("large"))
    finish(a.traffic)


@pytest.mark.parametrize("kind, allowed", [(ByCommand, {250, os.EX_TEMPFAIL, 0}), (ByLogin, {250, 451, 452, 454, 421, 0})],
                         ids=["sendmail", "login"])
def test_submission(make_instance, tmp_path, kind, allowed):
    """sendmail(1) leaves in maildrop/ what it could not hand in, or says so. A client with a login hears what one of smtpd does."""
    a = agents.submission(make_instance, kind, **PATIENT)
    a.traffic.patience = 8
    errors = Errors(a, tmp_path, allowed)
    errors.all(RECEIVER, 4 if kind is ByCommand else 2, lambda what: a.traffic.until_taken("large"), matrix=True)
    agents.maildrop_is_empty(a.i)
    a.traffic.settle()
    print("second copies:", a.traffic.check(retries=True))


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
    a = agents.pickup(make_instance, tmp_path, **PATIENT)

    def after(what):
        a.traffic.one("small")  # a new file, so that the folder is looked at again
        faults.wait(a.flushed, 90, f"what {what} kept in maildrop")

    errors = Errors(a, tmp_path, {250})
    errors.all(PICKUP, 5, after)
    faults.wait(lambda: not [p for p in (a.i.spool / "maildrop").iterdir()], 90, "an empty maildrop")
    a.traffic.settle()
    a.traffic.check()


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
