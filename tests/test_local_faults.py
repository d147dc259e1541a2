"""Local delivery when processes are killed and the disk fails: nothing is lost, nothing is there twice."""
import collections
import os
import re
import shutil
import smtplib
import time

import pytest

from faults import Strace
from instance import SLOW, kill_all, wait
from load import acknowledged, load
from test_local import DOMAIN, send

pytestmark = [
    pytest.mark.skipif(not shutil.which("strace"), reason="needs strace"),
    pytest.mark.skipif(os.geteuid() != 0, reason="traces processes of other users"),
]
USER = "u1@example.test"
THREAD = {"mmap", "mprotect", "munmap", "madvise", "clone", "clone3", "rseq", "set_robust_list", "rt_sigprocmask"}  # one that starts
# Since Linux 6.10 a file gets its only name in new/; before, it has one in tmp/ and is renamed.
NEWER = tuple(map(int, re.match(r"(\d+)\.(\d+)", os.uname().release).groups())) >= (6, 10)
NAMES = "linkat" if NEWER else "renameat2"
OLDER = "linkat:error=ENOENT:syscall=getpid"  # what an older kernel says
# What a delivery of a small message does, in its order; tests/test_local.py counts on it too.
PATH = ("openat", "write", "sync_file_range", NAMES, "fsync", "close", "sendto")


def child(i):
    """The delivery child of the one user."""
    def look():
        found = [p for p in i.pids("local") if open(f"/proc/{p}/status").read().split("PPid:\t")[1].split()[0]
                 != str(i.process.pid)]
        return found[0] if found else None

    return wait(look, 10, "the delivery child")


def bodies(i):
    return [re.search(rb"Subject: (\S+)", t)[1].decode() for t in i.messages(USER)]


def flush(i):
    i.tool("queue", "flush", check=False)


def comes_once(i):
    """The message that was under way is delivered, and nothing is left of it in the queue."""
    def arrived():
        flush(i)
        return "victim" in bodies(i) and empty(i)

    wait(arrived, 30, "the message")
    assert bodies(i).count("victim") == 1


@pytest.fixture
def warmed(make_instance, request):
    """An instance whose delivery child for the user is up."""
    i = make_instance(main={"local_child_idle_time": "5m", "minimal_backoff_time": "1s", "direct_delivery_deadline": "10s"},
                      allow_deaths=True, direct=getattr(request, "param", True))
    send(i, USER, "Subject: first\n\nx\n")
    i.wait_messages(USER)
    return i


@pytest.mark.skipif(SLOW != 1, reason="a sanitizer makes calls of its own")
def test_the_path_is_as_short_as_it_claims(warmed, tmp_path):
    trace = tmp_path / "trace"
    s = Strace(child(warmed), trace=str(trace))
    for n in range(10):
        send(warmed, USER, f"Subject: n{n}\n\nx\n")
    warmed.wait_messages(USER, 11)
    s.stop()
    calls = collections.Counter(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.M))
    for name in PATH:
        assert calls[name] == 10, calls
    assert calls["clone3"] <= 2, calls
    rest = sum(n for name, n in calls.items() if name not in THREAD)
    assert rest <= 10 * (len(PATH) + 1) + 8, calls  # one recvmsg each, and the clock


@pytest.mark.parametrize("warmed", [False], indirect=True, ids=["queued"])
@pytest.mark.parametrize("call", PATH)
def test_killed_at_each_call(warmed, call):
    """Killed when it makes the call: the message is delivered by a successor, once."""
    s = Strace(child(warmed), f"{call}:signal=KILL:when=1")
    send(warmed, USER, "Subject: victim\n\nx\n")
    wait(lambda: not os.path.exists(f"/proc/{s.process.pid}") or s.process.poll() is not None, 10, "the kill")

    comes_once(warmed)
    assert not list((warmed.home(USER) / "Maildir/tmp").iterdir()) or call in ("write", "sync_file_range", "renameat2")


@pytest.mark.skipif(not NEWER, reason="the kernel is one")
@pytest.mark.parametrize("warmed", [False], indirect=True, ids=["queued"])
@pytest.mark.parametrize("call, when", [("openat", 2), ("write", 2), ("sync_file_range", 2), ("renameat2", 1), ("fsync", 1)])
def test_killed_with_an_older_kernel(warmed, call, when):
    """A file that has no name may not get one: it is written again with one in tmp/. Killed there."""
    s = Strace(child(warmed), OLDER, f"{call}:signal=KILL:when={when}")
    send(warmed, USER, "Subject: victim\n\nx\n")
    wait(s.dead, 10, "the kill")

    comes_once(warmed)
    left = list((warmed.home(USER) / "Maildir/tmp").iterdir())
    assert not left or call in ("write", "sync_file_range", "renameat2"), left


@pytest.mark.skipif(not NEWER, reason="the kernel is one")
def test_an_older_kernel_is_asked_once(warmed, tmp_path):
    trace = tmp_path / "trace"
    s = Strace(child(warmed), OLDER, "renameat2:delay_enter=1", trace=str(trace))
    for n in range(5):
        send(warmed, USER, f"Subject: n{n}\n\nx\n")
    warmed.wait_messages(USER, 6)
    s.stop()
    calls = collections.Counter(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.M))
    assert calls == {"linkat": 1, "renameat2": 5}, calls


def empty(i):
    return not [p for p in (i.spool / "queue").rglob("*") if re.fullmatch(r"[0-9A-Z]{12}", p.name)]


@pytest.mark.parametrize("warmed", [False], indirect=True, ids=["queued"])
@pytest.mark.parametrize("call, error, code, text", [
    ("openat", "EDQUOT", "5.2.2", "quota"),
    ("write", "EDQUOT", "5.2.2", "quota"),
    ("write", "ENOSPC", "4.3.1", "(?i)no space"),
    ("write", "EIO", "4.3.0", "(?i)input/output"),
    ("openat", "EROFS", "4.2.0", "(?i)read-only"),
    ("openat", "EMFILE", "4.2.0", "(?i)too many"),
    ("sync_file_range", "EIO", "4.3.0", "(?i)input/output"),
    (NAMES, "ENOSPC", "4.3.1", "(?i)no space"),
    ("fsync", "EIO", "4.3.0", "(?i)input/output"),
    ("fsync", "EDQUOT", "5.2.2", "quota"),
])
def test_disk_errors(warmed, call, error, code, text):
    s = Strace(child(warmed), f"{call}:error={error}:syscall=getpid")
    send(warmed, USER, "Subject: victim\n\nx\n")
    status = "bounced" if code[0] == "5" else "deferred"
    line = warmed.wait_log(rf" delivery .*to=<{USER}>.* status={status} ")[-1]
    s.stop()
    assert f"dsn={code} " in line and re.search(text, line), line
    assert not list((warmed.home(USER) / "Maildir/tmp").iterdir())
    if status == "deferred":
        comes_once(warmed)


def test_full_mailbox_is_told_to_the_client(warmed):
    s = Strace(child(warmed), "write:error=EDQUOT:syscall=getpid")
    with pytest.raises(smtplib.SMTPDataError) as e:
        send(warmed, USER, "Subject: victim\n\nx\n")
    s.stop()
    assert e.value.smtp_code // 100 == 5 and b"5.2.2" in e.value.smtp_error
    assert bodies(warmed) == ["first"]


def message(client, n):
    subject = f"{client}-{n}"
    return "a@far.test", [USER, f"joint@{DOMAIN}"] if n % 5 == 0 else [USER], f"Subject: {subject}\r\n\r\nx\r\n", {subject}


@pytest.mark.parametrize("victim", ["local", "maps", "nss", "child"])
def test_killed_under_load(make_instance, victim):
    i = make_instance(main={"mydestination": f"{DOMAIN}, localhost", "minimal_backoff_time": "1s",
                            "smtpd_client_connection_count_limit": "0"},
                      aliases=f"joint: {USER}\n", allow_deaths=True)
    with load(i, 3, message) as clients:
        for _ in range(6):
            time.sleep(0.4)
            pids = i.pids("local" if victim == "child" else victim)
            zygotes = [p for p in pids if f"PPid:\t{i.process.pid}\n" in open(f"/proc/{p}/status").read()]
            kill_all(zygotes if victim != "child" else set(pids) - set(zygotes))
        time.sleep(1)
    sent = acknowledged(clients)
    assert len(sent) > 30
    end = time.monotonic() + 60 * SLOW
    while time.monotonic() < end and not (sent <= set(bodies(i)) and empty(i)):
        flush(i)
        time.sleep(0.3)
    found = collections.Counter(bodies(i))
    assert not sent - set(found), sorted(sent - set(found))[:10]
    # To both recipients, which are one mailbox: two files for one of five, as the names differ by recipient.
    twice = [s for s, n in found.items() if n > (2 if int(s.rpartition("-")[2]) % 5 == 0 else 1)]
    assert not twice, twice
    name = "local" if victim == "child" else victim
    wait(lambda: re.search(rf"^\S+ +{name} +\d+ ready", i.tool("status", check=False).stdout, re.M), 30, f"{name} again")
