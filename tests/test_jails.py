"""The jails from inside live daemons: every process of an instance at work makes the calls that it may not make
(tests/inject.py), and each must fail. What a role may is said once more here, apart from lib/daemon/promises.c.

A sanitizer build has a wider list (tests of it say SANITIZED); the release build is where the list is judged whole.
"""
import os
import pathlib
import poplib
import re
import shutil
import signal
import smtplib
import stat
import struct
import time

import pytest

import inject
from inject import AT_FDCWD, KILLED, Tracee
from instance import BIN, DAEMONS, SLOW, Instance
from test_imap import login

pytestmark = [pytest.mark.skipif(not inject.usable, reason="needs root, and ptrace on x86-64"), pytest.mark.xdist_group("jails")]
SANITIZED = SLOW > 1
TSAN = "tsan" in str(BIN)
EACCES, EPERM, ENOSYS = -13, -1, -38
REFUSED = {KILLED, EACCES, EPERM, ENOSYS}
O_PATH, O_CREAT, O_WRONLY, O_DIRECTORY = 0o10000000, 0o100, 1, 0o200000
SYS_CHROOT = 1 << 18  # given up last, when the bounding set cannot be changed any more
CAPS_ZYGOTE = 1 << 5 | 1 << 6 | 1 << 7 | SYS_CHROOT  # KILL SETGID SETUID

# What each role may: as docs/DESIGN.md section 3 has it.
MAY = {
    "smtpd": "accept pair fork", "smtpd child": "", "submission": "accept pair fork", "submission child": "",
    "login": "accept pair fork", "login child": "", "auth": "thread read write", "dns": "inet",
    "maps": "outside read inotify", "nss": "outside read inet unix exec-map thread", "qmgr": "thread read write",
    "pickup": "read write inotify", "smtp-client": "inet bind", "bounce": "", "local": "anything outside become",
    "local child": "thread read write", "broker": "pair", "metrics": "accept",
    "imapd": "outside pair fork become thread read write inotify",
    "pop3d": "outside pair fork become thread read write inotify",
    "imapd child": "thread read write inotify", "pop3d child": "thread read write inotify", "log": "read write",
    "program": "anything outside", "pam": "anything outside root",
}


class World:
    """An instance at work: two users with sessions of each kind, deliveries, a started program."""

    def __init__(self, folder):
        self.i = Instance(folder, users={"u1@example.test": "pass1", "u2@example.test": "pass2"}, allow_deaths=True, all_running=True,
                          main={"auth_system_users": "yes", "virtual_alias_maps": "inline:{prog@example.test=prog@localhost}",
                                "smtpd_timeout": "600s", "command_time_limit": "600s", "local_child_idle_time": "1h",
                                "imap_session_idle_time": "1h", "process_idle_limit": "1h"},
                          aliases='postmaster: root\nroot: u1@example.test\nprog: "|/bin/sleep 500"\n')
        self.i.set(metrics_listen=f"127.0.0.1:{self.i.port['sink']}")
        self.i.extra_rows = ["metrics unix n - y - 1 metrics", "pam unix n - n - 1 pam"]
        self.i.write()
        self.i.start()
        self.open = []
        self.fill()
        self.roles = self.look()

    def fill(self):
        i = self.i
        for n in 1, 2:
            m = login(i) if n == 1 else login(i, user="u2@example.test", password="pass2")
            self.open.append(m)
        p = poplib.POP3_SSL("localhost", i.port["pop3s"], context=i.tls(), timeout=30 * SLOW)
        p.user("u1@example.test"), p.pass_("pass1")
        self.open.append(p)
        for port in "smtp", "submission":
            s = smtplib.SMTP("127.0.0.1", i.port[port], timeout=30 * SLOW)
            s.ehlo("c")
            self.open.append(s)
        self.open[-2].sendmail("a@sender.example", ["u1@example.test"], b"Subject: 1\r\n\r\nx\r\n")
        self.open[-2].sendmail("a@sender.example", ["u2@example.test"], b"Subject: 2\r\n\r\nx\r\n")
        self.open[-2].sendmail("a@sender.example", ["prog@localhost"], b"Subject: 3\r\n\r\nx\r\n")
        for n in 1, 2:
            i.wait_messages(f"u{n}@example.test", 1)

    def look(self):
        """{pid: role}"""
        end = time.monotonic() + 20 * SLOW
        while True:
            found = {}
            for pid, argv in self.i.processes():
                name = argv[0].rpartition("/")[2]
                own = self.parent(pid) == self.i.process.pid
                found[pid] = "program" if name in ("sleep", "sh") else name if own else f"{name} child"
            if set(found.values()) >= set(MAY):
                return found
            assert time.monotonic() < end, f"missing: {set(MAY) - set(found.values())}\n{self.i.tail()}"
            time.sleep(0.05)

    @staticmethod
    def parent(pid):
        return int(status(pid, "PPid")[0])

    def of(self, role):
        return [pid for pid, r in self.roles.items() if r == role]

    def may(self, pid, what):
        return what in MAY[self.roles[pid]].split()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    w = World(tmp_path_factory.mktemp("jails") / "i")
    yield w
    for client in w.open:
        client.sock.close()
    w.i.stop()


def status(pid, field):
    return re.search(rf"^{field}:\s*(.*)$", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M)[1].split()


def descriptors(pid):
    return sorted(int(fd) for fd in os.listdir(f"/proc/{pid}/fd"))


def is_refused(result, *also):
    return result in REFUSED or result in also


def others(w, pid):
    """Processes that this one has nothing to do with: not itself, not of its own uid."""
    uid = status(pid, "Uid")[0]
    return [other for other in [w.i.process.pid, *w.roles] if other != pid and status(other, "Uid")[0] != uid]


# --- what the kernel says ---

def test_identity(world):
    for pid, role in world.roles.items():
        caps = {name: int(status(pid, name)[0], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
        want = CAPS_ZYGOTE if role in ("local", "imapd", "pop3d") else 0
        most = CAPS_ZYGOTE if role == "program" or role.split()[0] in ("local", "imapd", "pop3d") else SYS_CHROOT
        assert role == "pam" or not caps["CapBnd"] & ~most, (role, caps)
        if role != "pam":
            assert caps["CapEff"] == caps["CapPrm"] == want and caps["CapInh"] == caps["CapAmb"] == 0, (role, caps)
            assert len(set(status(pid, "Uid"))) == len(set(status(pid, "Gid"))) == 1, role
            assert int(status(pid, "Uid")[0]) >= 1000 and "0" not in status(pid, "Groups"), role
        assert status(pid, "NoNewPrivs") == ["1"] and status(pid, "Seccomp") == ["2"], role
        root = os.readlink(f"/proc/{pid}/root")
        assert (root == "/") == world.may(pid, "outside"), (role, root)
        if "imapd child" in role or "pop3d child" in role or role == "local child":
            assert root.startswith((str(world.i.mail), str(world.i.run / "empty"))), (role, root)


def test_descriptors(world):
    """No door out: no descriptor of a directory outside of the root, none into /proc or /sys; a program has three."""
    for pid, role in world.roles.items():
        root = os.readlink(f"/proc/{pid}/root")
        for fd in descriptors(pid):
            try:
                target, st = os.readlink(f"/proc/{pid}/fd/{fd}"), os.stat(f"/proc/{pid}/fd/{fd}")
            except FileNotFoundError:
                continue
            assert not target.startswith(("/proc", "/sys")), (role, fd, target)
            if stat.S_ISDIR(st.st_mode):
                assert root != "/" and (target + "/").startswith(root + "/"), (role, fd, target)
        if role == "program":
            assert descriptors(pid) == [0, 1, 2], role


# --- what nobody may ---

def never(w, pid, other):
    """(what, call, arguments) that no role with a list of what it may makes; harmless where they would pass."""
    iov = struct.pack("QQ", 0, 0)
    return [
        ("mount", b"x", b"/", b"tmpfs"), ("umount2", b"/nowhere"), ("pivot_root", b".", b"."), ("open_tree", AT_FDCWD, b"/"),
        ("move_mount",), ("fsopen", b"tmpfs"), ("bpf", 0, 0, 0), ("io_uring_setup", 1, 0), ("io_uring_enter",),
        ("io_uring_register",), ("unshare", 0x10000000), ("setns", 0, 0), ("keyctl", 0), ("add_key",), ("request_key",),
        ("init_module",), ("finit_module",), ("kexec_load",), ("kexec_file_load",), ("perf_event_open",), ("userfaultfd",),
        ("open_by_handle_at",), ("swapon", b"/nowhere"), ("acct", b"/nowhere"), ("quotactl",), ("settimeofday",),
        ("clock_settime", 99), ("mknod", b"node", 0o20600, 259), ("iopl", 3), ("kcmp", other, other, 9), ("pidfd_getfd", 0, 0),
        ("ptrace", 16, other), ("ptrace", 0), ("process_vm_readv", other, iov, 1, iov, 1),
        ("process_vm_writev", other, iov, 1, iov, 1), ("setuid", 0), ("setgid", 0), ("setreuid", 0, 0), ("setregid", 0, 0),
        ("setfsuid", 0), ("setresuid", 0, 0, 0), ("setresgid", 0, 0, 0), ("setresuid", 999, 999, 999),
        ("setresuid", 2**32, 2**32, 2**32), ("sethostname", b"x", 1),
    ]


def unlisted(other):
    """Calls that stand on no list at all: those with a deny-list may make them, as anybody may."""
    return [
        ("execve", b"/nowhere", 0, 0), ("execveat", AT_FDCWD, b"/nowhere", 0, 0, 0), ("fork",), ("tgkill", other, other, 0),
        ("rt_sigqueueinfo", other, 0, 0), ("pidfd_send_signal", 0, 0, 0, 0), ("name_to_handle_at",), ("fanotify_init",),
        ("memfd_secret",), ("modify_ldt", 0, 0, 0), ("shmget",), ("msgget",), ("mq_open", b"x", 0), ("symlink", b"a", b"b"),
        ("chown", b".", 0, 0), ("fchownat", AT_FDCWD, b".", 0, 0, 0), ("reboot", 0, 0, 0), ("setpgid", 0, 0),
        ("openat2", AT_FDCWD, b"/etc/passwd", b"\0" * 24, 24), ("ioctl", 0, 0x5412, b"x"), ("creat", b"made", 0o600),
    ]


def test_what_nobody_may(world):
    tried = 0
    for pid, role in world.roles.items():
        other = next(p for p in others(world, pid) if world.roles.get(p) == "qmgr" or role == "qmgr")
        calls = never(world, pid, other)
        if "anything" not in MAY[role].split():
            calls += unlisted(other)
        with Tracee(pid) as t:
            for name, *arguments in calls:
                if role == "pam" and name.startswith("setres"):
                    continue  # it is root; the rest of the deny-list holds
                if TSAN and name == "tgkill":
                    continue  # promises.c says why
                assert is_refused(t.call(name, *arguments)), (role, name, arguments)
                tried += 1
    assert tried > 1200


def test_programs_gain_nothing(world):
    """The deny-list of what users start: nothing of another user, no way to more rights."""
    for pid in world.of("program"):
        with Tracee(pid) as t:
            for name, *arguments in (("setgroups", 1, b"\0\0\0\0"), ("capset", struct.pack("II", 0x20080522, 0), b"\xff" * 24),
                                     ("chroot", b"/"), ("openat", AT_FDCWD, b"/etc/shadow", 0), ("kill", world.i.process.pid, 0)):
                assert is_refused(t.call(name, *arguments)), name


# --- each promise, and a call just outside of it ---

def lacking(role):
    """Calls that need a promise which the role has not."""
    may = MAY[role].split()
    want = {
        "accept": [("listen", 0, 1), ("accept4", 0, 0, 0, 0)],
        "pair": [("socketpair", 1, 5, 0, b"\0" * 8)],
        "inet": [("socket", 2, 1, 0), ("socket", 2, 2, 0), ("socket", 10, 1, 0), ("socket", 2, 3, 1)],
        "unix": [("socket", 1, 1, 0), ("socket", 1, 5, 0)],
        "bind": [("bind", 0, 0, 0)],
        "inotify": [("inotify_init1", 0)],
        "fork": [("waitid", 0, 0, 0, 4), ("seccomp", 1, 0, 0), ("landlock_create_ruleset", 0, 0, 1), ("landlock_restrict_self", 0, 0)],
        "read": [("getdents64", 0, 0, 0), ("statfs", b".", b"\0" * 120), ("fadvise64", 0, 0, 0, 0), ("flock", 0, 0)],
        "become": [("setgroups", 0, 0), ("chroot", b"."), ("setresuid", 5000, 5000, 5000), ("setsid",)],
        "write": [("openat", AT_FDCWD, b"made", O_WRONLY | O_CREAT, 0o600), ("mkdirat", AT_FDCWD, b"made", 0o700),
                  ("unlink", b"dev/urandom"), ("rename", b"dev/urandom", b"x"), ("rmdir", b"dev"), ("truncate", b"dev/urandom", 0), ("fsync", 0),
                  ("sync_file_range", 0, 0, 0, 7), ("copy_file_range", 0, 0, 0, 0, 0)],
        "thread": [("sched_setscheduler", 0, 3, b"\0" * 4)],
    }
    calls = [call for promise, some in want.items() if promise not in may for call in some]
    if not {"read", "write"} & set(may):
        calls += [("openat", AT_FDCWD, b".", O_DIRECTORY)]
    if not {"inet", "unix"} & set(may):
        calls += [("connect", 0, struct.pack("<H", 2) + b"\0\31\177\0\0\1" + b"\0" * 8, 16)]
    calls += [("socket", 16, 3, 0), ("socket", 17, 3, 0), ("socket", 38, 5, 0), ("socket", 40, 1, 0)]
    if "fork" not in may and not SANITIZED:
        calls += [("clone", signal.SIGCHLD, 0, 0, 0, 0), ("kill", 1, 0)]
    if "fork" not in may:
        calls += [("pidfd_open", 1, 0)]
    if not SANITIZED:
        calls += [("clone", 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0), ("clone3", b"\0" * 64, 64),
                  ("openat", AT_FDCWD, b".", O_PATH), ("rt_sigaction", signal.SIGSYS, b"\0" * 32, 0, 8)]
        if "exec-map" not in may:
            calls += [("mmap", 0, 4096, 5, 0x22, 2**64 - 1, 0)]
    return calls


def test_promises(world):
    for pid, role in world.roles.items():
        if "anything" in MAY[role].split():
            continue
        with Tracee(pid) as t:
            for name, *arguments in lacking(role):
                assert is_refused(t.call(name, *arguments)), (role, name, arguments)


def landlock_abi():
    return inject.libc.syscall(444, None, 0, 1)  # landlock_create_ruleset, its version


def test_only_the_ports_that_were_named(world):
    """smtp-client and dns make connections, but to no port that the configuration does not name, and listen on none."""
    if landlock_abi() < 4:
        pytest.skip("the kernel's Landlock knows no ports")
    for role in "smtp-client", "dns":
        with Tracee(world.of(role)[0]) as t:
            fd = t.call("socket", 2, 1, 0)
            assert fd >= 0
            for call, port in (("connect", world.i.port["imap"]), ("connect", 22), ("bind", 2599)):
                address = struct.pack("<H", 2) + struct.pack(">H", port) + b"\x7f\0\0\1" + b"\0" * 8
                assert is_refused(t.call(call, fd, address, 16)), (role, call, port)
            assert is_refused(t.call("listen", fd, 1)), role
            t.call("close", fd)


def test_nobody_is_signalled(world):
    """kill, prlimit of every process of another uid. Zygotes have CAP_KILL: they end their children, which are users'."""
    for pid, role in world.roles.items():
        if role in ("local", "imapd", "pop3d", "pam"):
            continue
        with Tracee(pid) as t:
            for other in others(world, pid):
                assert is_refused(t.call("kill", other, 0)), (role, world.roles.get(other))
                assert is_refused(t.call("prlimit64", other, 7, 0, b"\0" * 16)), (role, world.roles.get(other))


# --- paths ---

def test_no_path_leads_out(world):
    """Absolute paths to what is others', from every process."""
    i = world.i
    secrets = [b"/etc/shadow", *(os.fsencode(p) for p in (
        i.data / "users.lmdb", i.spool / "queue", i.spool / "maildrop", i.home("u1@example.test") / "Maildir",
        i.home("u2@example.test") / "Maildir", i.data / "self-made.key", i.log_file, "/proc/1/environ", "/root"))]
    for path in secrets:
        assert os.path.exists(path) or path.endswith(b".key"), path
    for pid, role in world.roles.items():
        if role == "pam":
            continue
        with Tracee(pid) as t:
            for path in secrets if role != "log" else secrets[:-3]:
                assert is_refused(t.call("openat", AT_FDCWD, path, 0), -2, -20), (role, path)
            if not {"local", "imapd", "pop3d", "nss", "program"} & {role}:
                assert is_refused(t.call("openat", AT_FDCWD, b"/etc/passwd", 0), -2), role


def test_dotdot_from_every_descriptor(world):
    """`..` walked from each descriptor, held or opened: nothing above the root is opened, and in a root nothing is seen."""
    up = b"../" * 16
    walked = 0
    for pid, role in world.roles.items():
        if role == "pam":
            continue
        chrooted, root = not world.may(pid, "outside"), os.readlink(f"/proc/{pid}/root")
        with Tracee(pid) as t:
            for fd in [AT_FDCWD, *descriptors(pid)]:
                calls = [("openat", fd, up + b"etc/shadow", 0), ("openat", fd, up + b"proc/1/environ", 0)]
                if chrooted:
                    calls += [("openat", fd, up + b"etc/passwd", 0), ("openat", fd, up + b"etc/passwd", O_PATH),
                              ("newfstatat", fd, up + b"etc/passwd", b"\0" * 144, 0),
                              ("readlinkat", fd, up + b"proc/self/exe", b"\0" * 64, 64),
                              ("statx", fd, up + b"etc/passwd", 0, 0, b"\0" * 256)]
                for name, *arguments in calls:
                    assert is_refused(t.call(name, *arguments), -2, -9, -20), (role, name, fd)
                    walked += 1
                above = t.call("openat", fd, b"..", O_DIRECTORY) if chrooted else EACCES
                if isinstance(above, int) and above >= 0:
                    assert (os.readlink(f"/proc/{pid}/fd/{above}") + "/").startswith(root + "/"), (role, fd)
                    t.call("close", above)
    assert walked > 1500


def test_users_do_not_meet(world):
    """A session of u1 and one of u2: other uids, other roots, and from the one nothing of the other."""
    for role in "imapd child", "local child":
        a, b = [p for p in world.of(role) if os.readlink(f"/proc/{p}/root").startswith(str(world.i.mail))]
        assert status(a, "Uid") != status(b, "Uid")
        assert os.readlink(f"/proc/{a}/root") != os.readlink(f"/proc/{b}/root")
        for one, other in (a, b), (b, a):
            home = os.fsencode(os.readlink(f"/proc/{other}/root"))
            with Tracee(one) as t:
                for path in home, b"../" * 3 + home.split(b"/")[-2], home.split(b"/")[-1] + b"/../../u2":
                    assert is_refused(t.call("openat", AT_FDCWD, path, 0), -2, -20), (role, path)
                    assert is_refused(t.call("newfstatat", AT_FDCWD, path, b"\0" * 144, 0), -2, -20), (role, path)
                for name, *arguments in (("kill", other, 0), ("ptrace", 16, other), ("pidfd_open", other, 0),
                                         ("tgkill", other, other, 0), ("process_vm_readv", other, 0, 0, 0, 0)):
                    assert is_refused(t.call(name, *arguments)), (role, name)


# --- and it is death ---

def test_a_forbidden_call_is_death(world):
    """One process of each kind makes such a call for good: SIGSYS, the log names the call, and the suite goes on."""
    kinds = sorted((r for r in MAY if "anything" not in MAY[r].split()), key=lambda r: (not r.endswith("child"), r == "log"))
    for role in kinds:
        if role == "log":  # it dies last, and what it had not read yet would die with it
            world.i.wait_log(r"jail-violation syscall=165 ", seconds=20 * SLOW, count=len(kinds) - 1)
        end = time.monotonic() + 30 * SLOW
        with pytest.raises(inject.Gone) as gone:
            while time.monotonic() < end:  # a child's death renews its zygote: the pid may be another by now
                pids = world.of(role)[:1] if role.endswith("child") else world.i.pids(role)
                try:
                    with Tracee(next(p for p in pids if role.endswith("child") or world.parent(p) == world.i.process.pid)) as t:
                        t.call("mount", b"x", b"/", b"tmpfs", let_die=True)
                        raise AssertionError(f"{role} lives")
                except (ProcessLookupError, StopIteration, FileNotFoundError):
                    time.sleep(0.05)
        assert os.WIFSIGNALED(gone.value.status) and os.WTERMSIG(gone.value.status) == signal.SIGSYS, role
    lines = world.i.wait_log(r"jail-violation syscall=165 ", seconds=20, count=len(kinds))
    assert len(lines) == len(kinds)
    end = time.monotonic() + 60 * SLOW
    while True:
        text = world.i.tool("status", check=False).stdout
        if all(re.search(rf"^\S+\s+{d}\s+\d+ ready", text, re.M) for d in (*DAEMONS, "smtpd", "submission", "login")):
            break
        assert time.monotonic() < end, text + world.i.tail()
        time.sleep(0.1)
    before = len(world.i.messages("u2@example.test"))
    with smtplib.SMTP("127.0.0.1", world.i.port["smtp"], timeout=30 * SLOW) as s:
        s.sendmail("a@sender.example", ["u2@example.test"], b"Subject: after\r\n\r\nx\r\n")
    world.i.wait_messages("u2@example.test", before + 1)
    m = login(world.i, "INBOX", user="u2@example.test", password="pass2")
    m.logout()


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
@pytest.mark.parametrize("abi, missing", [(2, "TCP ports, signals, abstract sockets"), (5, "signals, abstract sockets")])
def test_an_older_landlock_is_told(make_instance, abi, missing):
    """What the kernel lacks is said by master at its start. The daemons, which strace leaves alone, use what there is."""
    i = make_instance(start=False)
    i.command = ["strace", "-D", "-qq", "-o", "/dev/null", "-e", f"inject=landlock_create_ruleset:retval={abi}"]
    i.start()
    i.wait_log(f'warning: landlock-partial abi={abi} missing="{missing}" remedy="Boot Linux 6.12 or later')
