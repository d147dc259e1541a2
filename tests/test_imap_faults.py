"""The IMAP session of a user killed, or refused by the disk, at each system call of APPEND, STORE, COPY, MOVE and EXPUNGE.

What was answered with OK is true afterwards, nothing is half or there twice, and no UID ever means another message.
"""
import collections
import errno
import imaplib
import re

import pytest

import faults
from faults import Strace, path_of, sample
from instance import SLOW
from preload import Library, Shortener
from test_imap import USER, deliver, lines_until, login, message, ok
from test_queue_errors import TEXTS

pytestmark = faults.NEEDS
FOLDERS = ("INBOX", "Archive")


def session_of(i):
    """The process of the one user's session."""
    def look():
        own = [p for p in i.pids("imapd") if "\nPPid:\t%d\n" % i.process.pid not in open(f"/proc/{p}/status").read()]
        return own[:1]

    return faults.wait(look, 30, "a session")[0]


class Model:
    """What a mailbox may look like: for each subject what was asked (maybe) and what was answered with OK (done)."""

    def __init__(self, i):
        self.i, self.n, self.codes = i, 0, collections.Counter()
        self.maybe, self.done, self.refused = collections.defaultdict(set), collections.defaultdict(set), collections.defaultdict(set)
        self.uid, self.seen, self.validity = {}, {}, {}

    def step(self, subject, what, call):
        self.maybe[subject].add(what)
        kind, data = call()
        self.codes[kind] += 1
        (self.done if kind == "OK" else self.refused)[subject].add(what)
        return data if kind == "OK" else None

    def append(self, m, subject):
        data = self.step(subject, "append", lambda: m.append("INBOX", None, None, message(subject, subject * 40)))
        if data:
            self.uid[subject] = re.search(rb"APPENDUID \d+ (\d+)", data[0])[1].decode()
        return self.uid.get(subject)

    def round(self, m):
        """Each command once, on messages of its own."""
        self.n += 1
        for what in ("store", "copy", "move", "expunge"):
            subject = f"{what}-{self.n}"
            uid = self.append(m, subject)
            if not uid:
                continue
            if what == "store":
                self.step(subject, what, lambda: m.uid("STORE", uid, "+FLAGS.SILENT", "(\\Flagged $Label)"))
            elif what == "copy":
                self.step(subject, what, lambda: m.uid("COPY", uid, "Archive"))
            elif what == "move":
                self.step(subject, what, lambda: m.uid("MOVE", uid, "Archive"))
            else:
                self.step(subject, "delete", lambda: m.uid("STORE", uid, "+FLAGS.SILENT", "(\\Deleted)"))
                self.step(subject, what, lambda: m.uid("EXPUNGE", uid))

    def try_round(self, m):
        """False: the session has ended."""
        try:
            self.round(m)
            return True
        except (imaplib.IMAP4.error, OSError):
            return False

    def look(self):
        found = collections.defaultdict(list)
        m = login(self.i)
        for folder in FOLDERS:
            ok(m.select(folder))
            validity = m.response("UIDVALIDITY")[1][0]
            assert self.validity.setdefault(folder, validity) == validity, f"UIDVALIDITY of {folder} changed"
            if not int(m.response("EXISTS")[1][-1] or 0):
                continue
            for part in ok(m.fetch("1:*", "(UID FLAGS BODY.PEEK[])")):
                if not isinstance(part, tuple):
                    continue
                subject = re.search(rb"Subject: (\S+)", part[1])[1].decode()
                uid = re.search(rb"UID (\d+)", part[0])[1].decode()
                assert part[1] == message(subject, subject * 40), f"{subject} is not whole"
                assert self.seen.setdefault((folder, uid), subject) == subject, f"UID {uid} of {folder} is another message now"
                found[subject].append((folder, uid, part[0]))
        m.logout()
        return found

    def check(self):
        found = self.look()
        for subject, asked in self.maybe.items():
            done, copies = self.done[subject], found.get(subject, [])
            at = [f for f, _, _ in copies]
            assert len(at) == len(set(at)), f"{subject} is there twice: {copies}"
            if "append" in done and "expunge" not in asked:
                assert at, f"{subject} is lost"
            if "append" in self.refused[subject]:
                assert not at, f"{subject} was refused and is there"
            for folder, uid, flags in copies:
                if folder == "INBOX" and subject in self.uid:
                    assert uid == self.uid[subject], f"{subject} has UID {uid}, not {self.uid[subject]}"
                if "store" in done:
                    assert b"\\Flagged" in flags and b"$Label" in flags, f"{subject} has lost its flags: {flags}"
            if "copy" in done:
                assert sorted(at) == ["Archive", "INBOX"], (subject, copies)
            if "move" in done:
                assert at == ["Archive"], (subject, copies)
            if "expunge" in done and "delete" in done:
                assert not at, (subject, copies)
        assert set(found) <= set(self.maybe)
        return len(found)


def prepared(make_instance, **main):
    i = make_instance(allow_deaths=True, main={"service_throttle_time": "100ms", **main})
    m = login(i, "INBOX")
    m.create("Archive")
    model = Model(i)
    model.round(m)
    return i, model, m


def open_session(i):
    """A login and its process; the zygote may just be coming back."""
    def attempt():
        try:
            return login(i, "INBOX")
        except (imaplib.IMAP4.error, OSError, AssertionError):
            return None

    return faults.wait(attempt, 60, "a login")


def test_killed_at_each_call(make_instance, tmp_path, record_property):
    i, model, m = prepared(make_instance)
    s = Strace(session_of(i), trace=str(tmp_path / "path"))
    model.round(m)
    s.stop()
    points, total = path_of(tmp_path / "path")
    assert total >= faults.LEAST
    for k, (name, n) in enumerate(sample(points, 10)):
        m = open_session(i)
        pid = session_of(i)
        s = Strace(pid, f"{name}:signal=KILL:when={n}", trace=str(tmp_path / "trace"))
        for _ in range(6):
            if not model.try_round(m):
                break
        else:
            raise AssertionError(f"the session never came to call {n} of {name}")
        faults.wait(s.dead, 20, f"the end of {pid} by a kill at call {n} of {name}")
        if k % 10 == 9:
            model.check()
    record_property("points", len(points))
    print(f"points={len(points)} messages={model.check()} answers={dict(model.codes)}")


ERRORS = [(call, error) for call, errors in (
    ("openat", ("EIO", "ENOSPC", "EROFS", "EMFILE", "ENFILE", "EDQUOT")), ("write", ("EIO", "ENOSPC", "EDQUOT")),
    ("writev", ("EIO", "ENOSPC", "EDQUOT")), ("pwrite64", ("EIO", "ENOSPC", "EDQUOT")), ("fsync", ("EIO", "ENOSPC", "EDQUOT")),
    ("fdatasync", ("EIO",)), ("sync_file_range", ("EIO", "ENOSPC")), ("renameat2", ("EIO", "ENOSPC", "EROFS", "EDQUOT")),
    ("renameat", ("EIO", "ENOSPC", "EROFS")), ("linkat", ("EIO", "ENOSPC", "EROFS", "EDQUOT")), ("unlinkat", ("EIO", "EROFS"))) for error in errors]


def test_each_error(make_instance, tmp_path):
    """NO for what could not be done, and the session goes on; or it ends, and the next one finds all in order."""
    i, model, m = prepared(make_instance)
    s = Strace(session_of(i), trace=str(tmp_path / "path"))
    model.round(m)
    s.stop()
    used = {name for name, _ in path_of(tmp_path / "path")[0]}
    errors = [(c, e) for c, e in ERRORS if c in used]
    assert len(errors) >= 10, used
    for call, error in sample(errors, 8):
        before, log = model.codes.copy(), len(i.log())
        m = open_session(i)
        s = Strace(session_of(i), f"{call}:error={error}:syscall=getpid")
        model.try_round(m)
        s.stop()
        assert model.codes["BAD"] == 0
        if call in ("openat", "fsync", "fdatasync", "renameat2"):  # write is the socket's as well: then the session ends
            assert model.codes["NO"] > before["NO"], f"no command failed though {call} gave {error}"
            if error != "EDQUOT":  # the user's own
                told = rf" error: imap-failed .*reason=\"{TEXTS[error]}\".*remedy="
                faults.wait(lambda: re.search(told, i.log()[log:]), 10, f"a line about {call} {error}")
        m = open_session(i)
        ok(m.noop())
        model.check()
        assert model.try_round(m), f"the session does not go on after {call} {error}"
    print(f"errors={len(errors)} messages={model.check()} answers={dict(model.codes)}")


def test_a_file_system_without_noreplace(make_instance):
    """renameat2 takes no flags on NFS, nor on ZFS before 2.2: all commands go on, and new mail becomes old."""
    i, model, m = prepared(make_instance)
    s = Strace(session_of(i), "renameat2:error=EINVAL:syscall=getpid")
    model.round(m)
    assert model.codes.keys() == {"OK"}
    ok(m.create("Other"))
    ok(m.rename("Other", "Another"))
    model.check()
    deliver(i, message("new", "x"))
    faults.wait(lambda: ok(m.noop()) and not list((i.home(USER) / "Maildir/new").iterdir()), 20, "the end of new mail")
    s.stop()


@pytest.mark.skipif(SLOW != 1, reason="the library comes before that of a sanitizer")
def test_short_writes(make_instance, tmp_path):
    """Half of each write: nobody notices. Half and then an error: NO, and nothing half is there."""
    library = Shortener(tmp_path)
    i, model, m = prepared(make_instance, daemon_directory=library.programs("imapd"))
    library.arm(library.HALF)
    model.round(m)
    assert model.codes.keys() == {"OK"} and library.cut("imapd")["write"] > 20
    refused = 0
    for error in sample([errno.ENOSPC, errno.EIO, errno.EDQUOT], 1):
        for least in (40, 200):  # records of the journal too; messages alone
            library.arm(error, least=least)
            before = model.codes["NO"]
            model.try_round(m)
            refused += model.codes["NO"] - before
            library.arm(0)
            m = open_session(i)
            model.check()
            assert model.try_round(m), f"the session does not go on after {errno.errorcode[error]}"
    assert refused and not model.codes["BAD"]
    print(f"short={library.cut('imapd')} messages={model.check()} answers={dict(model.codes)}")


@pytest.mark.skipif(SLOW != 1, reason="the library comes before that of a sanitizer")
def test_a_folder_without_a_watch_is_polled(make_instance, tmp_path):
    """The watches are used up when a folder is opened: its IDLE hears all the same, and the log says why it is late."""
    i = make_instance(main={"daemon_directory": Library(tmp_path, "no_watches", "NO_WATCHES_FILE").programs("imapd")})
    m = login(i, "INBOX")
    assert "imap-watch" not in i.log()
    ok(m.select("Archive"))
    line = r' warning: imap-watch user=\S+ reason="no watch for a folder" remedy="raise fs.inotify.max_user_watches"'
    faults.wait(lambda: re.search(line, i.log()), 10, "a line about the watches")
    m.send(b"x IDLE\r\n")
    lines_until(m, rb"^\+ ")
    deliver(i, message("first"), ".Archive")
    lines_until(m, rb"^\* 1 EXISTS", 30)
    deliver(i, message("second"), ".Archive")
    lines_until(m, rb"^\* 2 EXISTS", 30)
    m.send(b"DONE\r\n")
    lines_until(m, rb"^x OK")
    assert i.log().count("imap-watch") == 1
    m.logout()
