"""The queue's disk and descriptors fail at each call of qmgr's way: the right 4xx, a line in the log, nothing lost."""
import re

import faults
from faults import Strace, sample
from test_commit_faults import finish, relaying, restart_at  # noqa: F401 (a fixture)

pytestmark = faults.NEEDS
TEXTS = {"EIO": "Input/output error", "ENOSPC": "No space left on device", "EROFS": "Read-only file system", "EMFILE": "Too many open files",
         "ENFILE": "Too many open files in system", "EDQUOT": "Disk quota exceeded", "ENOMEM": "Cannot allocate memory"}
FULL = ("ENOSPC", "EDQUOT", "EMFILE", "ENFILE", "ENOMEM")  # try again when there is room: 452 4.3.1
# Calls of a commit, small and large, and which errors they can give.
COMMIT = [(call, error) for call, errors in (
    ("openat", ("EIO", "ENOSPC", "EROFS", "EMFILE", "ENFILE", "EDQUOT", "ENOMEM")),
    ("pwritev", ("EIO", "ENOSPC", "EROFS", "EDQUOT")),
    ("fsync", ("EIO", "ENOSPC", "EROFS", "EDQUOT")),
    ("fchmod", ("EIO", "EROFS")),
    ("fcntl", ("EIO", "ENOMEM")),
    ("newfstatat", ("EIO",))) for error in errors]


def alive(i, pid):
    assert i.pids("qmgr") == [pid], "qmgr died"


def line_of(i, before, error):
    """The new line of the log that says what failed, why, and what to do."""
    def look():
        return [x for x in i.log()[before:].splitlines() if "qmgr[" in x and "error: " in x and TEXTS[error] in x and "remedy=" in x]

    return faults.wait(look, 10, f"a line about {error}")[0]


def test_each_error_of_a_commit(relaying):  # noqa: F811
    i, traffic = relaying()
    for call, error in sample(COMMIT, 8):
        before, [pid] = len(i.log()), i.pids("qmgr")
        s = Strace(pid, f"{call}:error={error}:syscall=getpid")
        kinds = ["small", "large"] if call not in ("fchmod", "fcntl", "newfstatat") else ["large"]
        want = (452, "4.3.1") if error in FULL else (451, "4.3.0")
        for kind in kinds:
            code = traffic.one(kind)
            assert (code, traffic.last.split()[0]) == want, (call, error, kind, code, traffic.last)
        line_of(i, before, error)
        s.stop()
        alive(i, pid)
        if error == "EIO" and "queue-broken" in i.log()[before:]:
            assert traffic.one("small") == 451, "a disk that lost data is not believed again by itself"
            i.tool("queue", "trust")
        traffic.until_taken("small")
        traffic.until_taken("large")
    finish(traffic)


UPDATE = [(call, error) for call in ("openat", "pwritev", "utimensat") for error in ("EIO", "ENOSPC", "EROFS", "EMFILE", "EDQUOT")
          if (call, error) not in (("pwritev", "EMFILE"), ("utimensat", "EMFILE"))]


def test_each_error_of_a_result(relaying):  # noqa: F811
    """What is known of a recipient cannot be written down: a line says so, and the message stays."""
    i, traffic = relaying()
    ids = []
    for call, error in sample(UPDATE, 3):
        assert traffic.one("later") == 250
        before, [pid] = len(i.log()), i.pids("qmgr")
        ids.append(re.search(r"as (\w+)", traffic.last)[1])
        i.wait_log(rf"qid={ids[-1]} .*status=deferred")
        s = Strace(pid, f"{call}:error={error}:syscall=getpid")
        i.tool("queue", "flush")
        assert re.search(r"queue-(update|load)", line_of(i, before, error))
        s.stop()
        alive(i, pid)
        if "queue-broken" in i.log()[before:] or error == "EIO":
            i.tool("queue", "trust", check=False)
        traffic.until_taken("small")
    assert set(ids) <= {p.name for p in faults.queue_files(i)}
    finish(traffic)


LOAD = [(call, error) for call in ("openat", "newfstatat", "pread64") for error in ("EIO", "EMFILE", "ENFILE", "ENOMEM")
        if call == "openat" or error in ("EIO", "ENOMEM")]


def test_each_error_of_reading_back(relaying):  # noqa: F811
    i, traffic = relaying()
    assert traffic.one("later") == 250
    name = re.search(r"as (\w+)", traffic.last)[1]
    for call, error in sample(LOAD, 3):
        i.wait_log(rf"qid={name} .*status=deferred")
        before, [pid] = len(i.log()), i.pids("qmgr")
        s = Strace(pid, f"{call}:error={error}:syscall=getpid")
        i.tool("queue", "flush")
        faults.wait(lambda: re.search(rf"queue-load .*{TEXTS[error]}", i.log()[before:]), 20, f"a line about {call} {error}")
        s.stop()
        alive(i, pid)
        assert name in {p.name for p in faults.queue_files(i)}
        traffic.until_taken("small")
    finish(traffic)


WALK = [("pread64", "EIO"), ("getdents64", "EIO"), ("openat", "EMFILE"), ("newfstatat", "EIO"), ("openat", "ENOMEM")]


def test_each_error_of_the_walk(relaying, tmp_path):  # noqa: F811
    """What cannot be read at a start stays where it is: the next start finds it."""
    i, traffic = relaying()
    traffic.burst("later")
    kept = faults.wait(lambda: len(f := faults.queue_files(i)) == 2 and f, 30, "two that wait")
    for call, error in sample(WALK, 1):
        before = len(i.log())
        restart_at(i, None, traffic, tmp_path / "trace", (f"{call}:error={error}:syscall=getpid",))
        assert re.search(rf"queue-walk .*{TEXTS[error]}.*remedy=", i.log()[before:]), i.tail()
        assert set(kept) <= set(faults.queue_files(i))
        traffic.until_taken("small")
        restart_at(i, None, traffic, tmp_path / "trace", ("flock:error=EINTR:when=1000",))
    finish(traffic)


def test_short_writes(relaying):  # noqa: F811
    """RLIMIT_FSIZE lets each file have 512 bytes: a write is short, the next one fails."""
    i, traffic = relaying()
    [pid] = i.pids("qmgr")
    faults.limit(pid, fsize=512)
    before = len(i.log())
    assert traffic.one("small") // 100 in (0, 4)
    faults.wait(lambda: re.search(r"queue-commit .*(File too large|reason=)", i.log()[before:]) or i.pids("qmgr") != [pid], 20, "word of it")
    if i.pids("qmgr") == [pid]:
        faults.limit(pid, fsize="unlimited")
    traffic.until_taken("small")
    finish(traffic)
