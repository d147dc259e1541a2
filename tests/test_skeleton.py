"""The skeleton: every process in its jail, wired to its peers, and a fault in one that touches nobody else."""
import ctypes
import os
import pathlib
import re
import signal
import smtplib
import time

import pytest

from instance import DAEMONS, SLOW

ROLES = pathlib.Path(__file__).parent.parent / "lib/daemon/roles.def"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's instance has one uid and no chroot")


def security(i):
    """{pid: (role, uid, seccomp, nnp, caps, root)} and the daemons' own reports {program: text}."""
    rows, reports = {}, {}
    for line in i.tool("security").stdout.splitlines():
        m = re.match(r"\s*(\d+) (\S+(?: child)?)\s+(\d+) (\S+)\s+(yes|no)\s+([0-9a-f]+)\s+(\S+)", line)
        if m:
            rows[int(m[1])] = m.groups()[1:]
        m = re.match(r"(\S+)\[(\S+)\] (.*)", line)
        if m:
            reports[m[1]] = m[3]
    return rows, reports


def ready(i, program):
    status = i.tool("status", check=False).stdout
    return re.search(rf"^\S+\s+{re.escape(program)}\s+\d+ ready", status, re.M)


def wait_new(i, program, old, seconds=1.0):
    end = time.monotonic() + seconds * SLOW
    while time.monotonic() < end:
        now = set(i.pids(program))
        if now and not now & set(old) and ready(i, program):
            return now
        time.sleep(0.02)
    raise AssertionError(f"{program}: no successor within {seconds} s\n{i.tail()}")


@root_only
def test_every_process_is_jailed(instance):
    rows, reports = security(instance)
    number = {w[0]: w[1] for w in (line.split() for line in ROLES.read_text().splitlines() if line[:1].isalpha())}
    seen = set()
    for role, uid, seccomp, nnp, caps, root in rows.values():
        seen.add(role)
        if role == "master":
            continue
        assert (seccomp, nnp) == ("filter", "yes"), role
        if role in number and number[role] != "0" and role != "pam":
            assert int(uid) == instance.uid_base + int(number[role]), role
        zygote = role in ("local", "imapd", "pop3d")
        assert (int(caps, 16) != 0) == zygote, (role, caps)
        if zygote:
            assert int(caps, 16) == 1 << 5 | 1 << 6 | 1 << 7 | 1 << 18, (role, caps)  # KILL SETGID SETUID SYS_CHROOT
        elif role not in ("nss", "maps"):
            assert root != "/", role
    assert seen >= set(DAEMONS) | {"master", "smtpd", "submission", "login"}, seen
    for program, text in reports.items():
        if program not in ("nss", "local", "imapd", "pop3d"):  # these may read, or run what may
            assert "open:/etc/shadow=OPEN" not in text, program
            assert "create:/tmp=OPEN" not in text, program
        assert "directories=" in text, program


@root_only
def test_empty_roots_are_empty(instance):
    assert list((instance.run / "empty").iterdir()) == []
    auth = instance.data / "auth"
    assert sorted(str(p.relative_to(auth)) for p in auth.rglob("*")) == ["dev", "dev/urandom"]


@pytest.mark.parametrize("program", [*DAEMONS, "smtpd", "login", "submission"])
def test_fault_is_followed_by_a_successor(make_instance, program):
    i = make_instance(allow_deaths=True)
    before = {p: i.pids(p) for p in [*DAEMONS, "smtpd", "login", "submission"]}
    os.kill(before[program][0], signal.SIGSEGV)
    wait_new(i, program, before[program][:1], 2.0)
    for other, pids in before.items():
        if other != program:
            assert set(pids) <= set(i.pids(other)), f"{other} did not survive the end of {program}"
    # and the suite works: a message goes all the way
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=20) as s:
        s.sendmail("a@sender.example", ["u1@example.test"], b"Subject: after\r\n\r\nbody\r\n")
    i.wait_messages("u1@example.test", 1)


def steal_socket(pid, role_fd):
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = libc.syscall(434, pid, 0)
    assert pidfd >= 0
    fd = libc.syscall(438, pidfd, role_fd, 0)
    os.close(pidfd)
    return fd


def seqpacket_fds(pid):
    """Descriptors of a process that are SOCK_SEQPACKET sockets, without its control channel (3) and log (5)."""
    kinds = {}
    for line in pathlib.Path("/proc/net/unix").read_text().splitlines()[1:]:
        words = line.split()
        kinds[words[6]] = words[4]
    out = []
    for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        m = re.match(r"socket:\[(\d+)\]", os.readlink(fd))
        if m and kinds.get(m[1]) == "0005" and int(fd.name) not in (3, 5):
            out.append(int(fd.name))
    return sorted(out)


@root_only
@pytest.mark.parametrize("program", ["maps", "qmgr", "dns", "auth", "broker", "smtp-client", "bounce"])
def test_malformed_message_costs_the_sender_only_its_channel(make_instance, program):
    """Garbage on every channel that a daemon holds: its peers close that channel, log it and live."""
    i = make_instance(allow_deaths=True)
    pid = i.pids(program)[0]
    others = {p: i.pids(p) for p in DAEMONS if p != program}
    fds = seqpacket_fds(pid)
    assert fds
    for fd in fds:
        mine = steal_socket(pid, fd)
        os.write(mine, b"\xff\xff not a message")
        os.close(mine)
    i.wait_log("ipc-violation", count=1)
    time.sleep(0.3)
    for other, pids in others.items():
        assert set(pids) <= set(i.pids(other)), f"{other} ended for a malformed message of {program}"


def test_reload_refuses_a_bad_configuration(instance):
    def daemons():
        return {p: instance.pids(p)[0] for p in DAEMONS}

    pids = daemons()
    main = instance.etc / "main.cf"
    good = main.read_text()
    main.write_text(good + "smtpd_timeuot = 3s\n")
    done = instance.tool("reload", check=False)
    assert done.returncode != 0
    assert "main.cf:" in done.stdout + done.stderr and "smtpd_timeout" in done.stdout + done.stderr
    assert daemons() == pids
    main.write_text(good)
    instance.reload()


def test_graceful_stop_leaves_nothing(make_instance):
    i = make_instance()
    assert len(i.processes()) >= len(DAEMONS)
    i.stop()  # asserts that no process is left and none died
    assert not (i.run / "control").exists()
