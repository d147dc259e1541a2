"""The skeleton: every process in its jail, wired to its peers, and a fault in one that touches nobody else."""
import ctypes
import datetime
import imaplib
import os
import pathlib
import re
import signal
import smtplib
import socket

import pytest

from instance import DAEMONS, SLOW, wait

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


ALL = [*DAEMONS, "smtpd", "login", "submission"]
SECOND = max(SLOW, os.getloadavg()[0] / 8)  # longer on a machine that others have overloaded


def when(line):
    return datetime.datetime.fromisoformat(line.split()[0].replace("Z", "+00:00")).timestamp()


def after(line):
    return int(re.search(r"after_ms=(\d+)", line)[1])


def goes_all_the_way(i, count=1):
    """A message from a stranger to the mailbox, and a login that reads it."""
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=20 * SLOW) as s:
        s.sendmail("a@sender.example", ["u1@example.test"], b"Subject: after\r\n\r\nbody\r\n")
    i.wait_messages("u1@example.test", count)
    with imaplib.IMAP4_SSL("localhost", i.port["imaps"], ssl_context=i.tls(), timeout=20 * SLOW) as m:
        m.login("u1@example.test", "pass1")
        assert m.select()[1] == [b"%d" % count]


@pytest.mark.parametrize("program", ALL)
def test_fault_is_followed_by_a_successor(make_instance, program):
    i = make_instance(allow_deaths=True)
    before = {p: i.pids(p) for p in ALL}
    i.faults = True
    os.kill(before[program][0], signal.SIGSEGV)
    [back] = i.wait_log(r"bulkhead/master\[\d+\]: service-back ")
    [died] = i.wait_log("service-died ")  # of SIGSEGV, or by a sanitizer that caught it
    assert re.search(r"service=\S+", back)[0] == re.search(r"service=\S+", died)[0]
    assert when(back) - when(died) < SECOND and after(back) < 1000 * SECOND, (died, back)
    assert not set(before[program][:1]) & set(i.pids(program))
    for other, pids in before.items():
        if other != program:
            assert set(pids) <= set(i.pids(other)), f"{other} did not survive the end of {program}"
    goes_all_the_way(i)


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


def spoil(i, pid):
    """Writes on every channel of a process, but to its own children, what is no message."""
    from test_ipc import peer_inodes, sockets
    peers = peer_inodes()
    children = {inode for p, _ in i.processes() if parent(p) == pid for inode in sockets(p)}
    channels = set(seqpacket_fds(pid))
    for inode, fd in sockets(pid).items():
        if fd in channels and peers.get(inode) not in children:
            with socket.socket(fileno=steal_socket(pid, fd)) as mine:
                mine.send(b"\xff\xff not a message")


def partners(program):
    """Programs that it has a channel with, one for each of their services."""
    role = "ROLE_" + program.upper().replace("-", "_")
    edges = re.findall(r"\{ (ROLE_\w+), (ROLE_\w+) \}", (ROLES.parent.parent.parent / "master/links.c").read_text())
    return [(b if a == role else a)[5:].lower().replace("_", "-") for a, b in edges if role in (a, b)]


@root_only
@pytest.mark.parametrize("program", [p for p in ALL if p != "log"])
def test_malformed_message_is_followed_by_a_new_channel(make_instance, program):
    """Garbage on every channel that a daemon holds: its peers close that channel and log it, both live, and within a second
    they have a new one."""
    i = make_instance(allow_deaths=True)
    before = {p: i.pids(p) for p in ALL}
    pid = min(before[program])
    count = sum(parent(p) == i.process.pid for name in partners(program) for p in before.get(name, []))
    assert count
    spoil(i, pid)
    lines = i.wait_log("master.* link-renewed ", count=count)
    assert len(lines) == count, lines
    assert max(map(after, lines)) < 1000 * SECOND, lines
    assert len(i.wait_log("ipc-violation ", count=count)) >= count
    goes_all_the_way(i)
    for other, pids in before.items():
        mine = {p for p in pids if parent(p) == i.process.pid}
        assert mine and mine <= set(i.pids(other)), f"{other} ended for a malformed message of {program}"
    assert "service-died" not in i.log() and "child-died" not in i.log()


def parent(pid):
    try:
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


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
    i = make_instance(all_running=True)
    assert len(i.processes()) >= len(DAEMONS)
    i.stop()  # asserts that no process is left and none died
    assert not (i.run / "control").exists()


def test_a_service_has_so_many_addresses(make_instance):
    """Each address of inet_interfaces answers; one too many is told, and not left to clients that nobody serves."""
    i = make_instance(start=False, main={"inet_interfaces": ", ".join(f"127.0.0.{n}" for n in range(1, 34))})
    i.extra_rows = [f"{i.port['sink']} inet n - n - - smtpd"]
    i.write()
    i.start()
    for n in range(1, 33):
        with smtplib.SMTP(f"127.0.0.{n}", i.port["sink"], timeout=20 * SLOW) as s:
            assert s.noop()[0] == 250
    with pytest.raises(ConnectionRefusedError):
        smtplib.SMTP("127.0.0.33", i.port["sink"], timeout=20 * SLOW)
    said = [line for line in ((i.folder / "stderr").read_text() + i.log()).splitlines() if " listen-failed " in line]
    assert len(said) == 1 and "address=127.0.0.33" in said[0] and "a row of their own" in said[0]


def test_ended_sessions_are_counted_at_once(make_instance):
    """Who is at its limit and comes back the moment its session has ended is not refused, more often than there is room for ends
    without a message; status counts who is there."""
    i = make_instance(main={"smtpd_client_connection_count_limit": "2", "mynetworks": "192.0.2.0/24"})

    def sessions():
        return int(re.search(rf"^smtpd\[127.0.0.1:{i.port['smtp']}\]: .* sessions=(\d+)", i.tool("status").stdout, re.M)[1])

    wait(lambda: sessions() == 0, 10, "the end of who asked whether the port answers")
    with socket.create_connection(("127.0.0.1", i.port["smtp"]), 10) as held:
        assert held.recv(100).startswith(b"220 ")
        for n in range(300):
            with socket.create_connection(("127.0.0.1", i.port["smtp"]), 10) as c:
                got = c.recv(100)
                assert got.startswith(b"220 "), (n, got)
                c.sendall(b"QUIT\r\n")
                assert c.recv(100).startswith(b"221 ")
                while c.recv(100):
                    pass
        wait(lambda: sessions() == 1, 10, "the count of sessions")
        with socket.create_connection(("127.0.0.1", i.port["smtp"]), 10) as second, \
                socket.create_connection(("127.0.0.1", i.port["smtp"]), 10) as third:
            assert second.recv(100).startswith(b"220 ")
            assert third.recv(100).startswith(b"421 4.7.0 ")
    wait(lambda: sessions() == 0, 10, "the end of all sessions")
