"""Every message from every peer: to live daemons, over channels that this test is the far end of.

A daemon knows a peer by the end of a pair that its parent gave it. The test borrows the parent's end of a process's
control channel and gives it pairs of its own, under each role that may be its peer. Messages are made from
lib/ipc/msgs.def. What is not permitted, cut short, lies about a length, or has a descriptor too many or too few costs the
channel; what is permitted but belongs to nothing (unknown ids, results for no job, the same twice, every number at its
end) costs at most that; and the receiver lives.

BULKHEAD_LONG=1 tries every type, every cut and every length; without it a fixed part of them.
"""
import imaplib
import os
import pathlib
import poplib
import re
import smtplib
import socket
import struct
import subprocess
import time

import pytest

from instance import BIN, DAEMONS, ROOT, SLOW, Instance, wait
from test_imap import login
from test_skeleton import steal_socket

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="takes descriptors of other processes"), pytest.mark.xdist_group("ipc")]
LONG = os.environ.get("BULKHEAD_LONG") == "1"
WIDTH = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}


# --- the table ---

class Type:
    def __init__(self, number, words):
        self.number, self.name = number, words[1]
        arrow = words.index("->")
        self.senders, self.receivers = words[3:arrow], words[arrow + 1:]
        self.fields, self.fd = [], "none"


def read_table():
    types, items, last = [], {}, None
    for line in (ROOT / "lib/ipc/msgs.def").read_text().splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        if words[0] == "msg":
            types.append(Type(len(types) + 1, words))
            last = types[-1].fields
        elif words[0] == "item":
            last = items[words[1]] = []
        elif words[0] == "fd":
            types[-1].fd = words[1]
        elif words[0] != "secret":
            last.append(words)
    return types, items


TYPES, ITEMS = read_table()
BY_NAME = {t.name: t for t in TYPES}
ROLES = {w[0]: (n, w[4]) for n, w in enumerate(
    [line.split() for line in (ROOT / "lib/daemon/roles.def").read_text().splitlines() if line[:1].isalpha()])}
CHILD = {parent: role for role, (_, parent) in ROLES.items() if parent in ROLES and role != "program" and parent != "master"}
EDGES = [tuple(w.lower().replace("_", "-") for w in m) for m in re.findall(
    r"\{ ROLE_(\w+), ROLE_(\w+) \}", (ROOT / "master/links.c").read_text())]


def allowed(t, sender, receiver):
    if "*" not in t.receivers and receiver not in t.receivers:
        return False
    return "*" in t.senders or sender in t.senders or ("parent" in t.senders and ROLES[receiver][1] == sender)


def body(fields, full, lengths, at):
    """The fields; full: something in each, else nothing; the offsets of length fields are added to lengths."""
    out = bytearray()
    for kind, *rest in fields:
        if kind in WIDTH:
            out += (b"\xff" if full == "ends" else b"\1" if full else b"\0").ljust(WIDTH[kind], b"\xff" if full == "ends" else b"\0")
            continue
        value = b"x" if full and kind != "list" else b""
        if kind == "list":
            lengths.append(at + len(out))
            out += struct.pack("<I", 1 if full else 0)
            value = body(ITEMS[rest[1]], full, [], 0) if full else b""
        lengths.append(at + len(out))
        out += struct.pack("<I", len(value)) + value
    return bytes(out)


def encode(t, ident=77, full=False):
    lengths = []
    return struct.pack("<HI", t.number, ident) + body(t.fields, full, lengths, 6), lengths


def test_the_fuzzer_begins_with_every_message():
    """fuzz/seeds/ipc_decode has each type with something in each field; write_bytes() in the place of the assertion makes them."""
    for t in TYPES:
        assert (ROOT / "fuzz/seeds/ipc_decode" / t.name).read_bytes() == encode(t, full=True)[0], f"{t.name} is not as msgs.def has it"


# --- processes and their channels ---

def peer_inodes():
    """{inode: inode of the other end} of all unix sockets."""
    out = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as s:  # sock_diag
        ask = struct.pack("=BBHIIIII", 1, 0, 0, 2**32 - 1, 0, 4, 2**32 - 1, 2**32 - 1)
        s.send(struct.pack("=IHHII", 16 + len(ask), 20, 0x301, 1, 0) + ask)
        while True:
            data, at = s.recv(1 << 20), 0
            while at + 16 <= len(data):
                size, kind = struct.unpack_from("=IH", data, at)
                if kind != 20:
                    return out
                inode, here = struct.unpack_from("=I", data, at + 20)[0], at + 32
                while here + 4 <= at + size:
                    n, what = struct.unpack_from("=HH", data, here)
                    if what == 2:
                        out[inode] = struct.unpack_from("=I", data, here + 4)[0]
                    here += (n + 3) & ~3
                at += (size + 3) & ~3


def sockets(pid):
    """{inode: fd}"""
    out = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            m = re.match(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{fd}"))
        except FileNotFoundError:
            continue  # it has just been closed
        if m:
            out[int(m[1])] = int(fd)
    return out


def parent_of(pid):
    """0: it has just gone."""
    try:
        return int(re.search(r"^PPid:\s*(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M)[1])
    except OSError:
        return 0


def parents_end(pid):
    """The parent's end of the control channel of a process: what only its parent has of it."""
    parent, peers = parent_of(pid), peer_inodes()
    held, mine = sockets(parent), sockets(pid)
    control = [held[peers[i]] for i in sorted(mine, key=mine.get) if peers.get(i) in held and mine[i] != 5]
    return socket.socket(fileno=steal_socket(parent, control[0]))


class Receiver:
    """A live process as one of its peers sees it."""

    def __init__(self, role, pid):
        self.role, self.pid, self.control = role, pid, parents_end(pid)

    def link(self, role):
        """A fresh channel on which this test is a peer of that role."""
        mine, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        zygote = ROLES[role][1] if role in CHILD.values() and role not in CHILD.get(self.role, "") else None
        if zygote and (zygote, self.role) not in EDGES and (self.role, zygote) not in EDGES:
            zygote = None
        if zygote:
            with self.link(zygote) as over:
                send(over, struct.pack("<HI", BY_NAME["child"].number, 0), far.fileno())
                far.close()
                return Held(mine, over.detach())
        data = struct.pack("<HIBII", BY_NAME["link"].number, 0, ROLES[role][0], 0, 0)
        send(self.control, data, far.fileno())
        far.close()
        return mine

    def lives(self):
        try:
            return pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False


class Held(socket.socket):
    """A channel of a child: its zygote's, over which it came, is kept as long."""

    def __init__(self, mine, zygote):
        super().__init__(fileno=mine.detach())
        self.zygote = socket.socket(fileno=zygote)

    def close(self):
        super().close()
        self.zygote.close()


def send(sock, data, *fds):
    end = time.monotonic() + 30 * SLOW
    while True:
        try:
            if fds:
                socket.send_fds(sock, [data], list(fds))
            else:
                sock.send(data)
            return
        except BlockingIOError:
            assert time.monotonic() < end, "the receiver takes nothing"
            time.sleep(0.005)
        except (BrokenPipeError, ConnectionResetError):
            return


def is_closed(sock):
    sock.settimeout(30 * SLOW)
    try:
        while sock.recv(65536):
            pass
        return True
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


# --- what is tried ---

def descriptor(t, wrong=False):
    return t.fd == "one" if not wrong else t.fd == "none"


def faulty(t, some):
    """(what, data, with a descriptor?) of a type that this peer may send."""
    data, lengths = encode(t, full=True)
    cuts = range(len(data)) if LONG else sorted({1, 5, 6, len(data) // 2, len(data) - 1} & set(range(1, len(data))))
    for n in list(cuts)[1 if LONG else 0:]:
        yield f"cut at {n}", data[:n], descriptor(t)
    yield "a byte more", data + b"\0", descriptor(t)
    for at in lengths if LONG else lengths[some % len(lengths):][:1] if lengths else []:
        old = struct.unpack_from("<I", data, at)[0]
        for lie in (old + 1, 2**31 - 1, 2**32 - 1):
            yield f"length at {at} is {lie}", data[:at] + struct.pack("<I", lie) + data[at + 4:], descriptor(t)
    if t.fd != "maybe":
        yield "descriptor", encode(t)[0], descriptor(t, wrong=True)


def odd(t):
    """Well-formed, but they belong to nothing; each is sent twice."""
    for ident in 0, 77, 2**32 - 1:
        for full in (False, True, "ends"):
            yield encode(t, ident, full)[0]


def try_peer(r, role, count):
    null = os.open("/dev/null", os.O_RDONLY)
    for t in TYPES:
        if not allowed(t, role, r.role):
            if LONG or (t.number + ROLES[role][0] + ROLES[r.role][0]) % 8 == 0:
                with r.link(role) as s:
                    send(s, encode(t)[0])
                    assert is_closed(s), f"{r.role} took {t.name} from {role}"
                count["refused"] += 1
            continue
        for what, data, fd in faulty(t, ROLES[role][0]):
            with r.link(role) as s:
                send(s, data, *[null] if fd else [])
                assert is_closed(s), f"{r.role}: {t.name} of {role}, {what}"
            count["faulty"] += 1
        with r.link(role) as s:
            for data in odd(t):
                for _ in "ab":
                    send(s, data, *[null] if descriptor(t) else [])
                    count["odd"] += 1
        with r.link(role) as s:  # it still reads
            send(s, b"\xff\xff not a message")
            assert is_closed(s), f"{r.role} hangs after {t.name} of {role}"
        assert r.lives(), f"{r.role} died of {t.name} of {role}"
    os.close(null)


@pytest.fixture(scope="module")
def instance_at_work(tmp_path_factory):
    i = Instance(tmp_path_factory.mktemp("ipc") / "i", allow_deaths=True, all_running=True,
                 main={"local_child_idle_time": "1h", "imap_session_idle_time": "1h", "auth_system_users": "yes",
                       "smtpd_client_connection_rate_limit": "0", "service_throttle_time": "1s"})
    i.extra_rows = ["pam unix n - n - 1 pam"]
    i.write()
    i.start()
    yield i
    i.stop()


@pytest.fixture
def busy(instance_at_work):
    """An instance with a child of each zygote at work."""
    i, end = instance_at_work, time.monotonic() + 60 * SLOW
    wait_ready(i)
    while True:  # a zygote may be renewed just now
        try:
            clients = [login(i), poplib.POP3_SSL("localhost", i.port["pop3s"], context=i.tls(), timeout=30 * SLOW)]
            clients[1].user("u1@example.test"), clients[1].pass_("pass1")
            clients += [smtplib.SMTP("127.0.0.1", i.port[port], timeout=30 * SLOW) for port in ("smtp", "submission")]
            break
        except (OSError, EOFError, AssertionError, imaplib.IMAP4.error, poplib.error_proto, smtplib.SMTPException):
            assert time.monotonic() < end, i.tail()
            time.sleep(0.05)
    yield i
    for c in clients:
        c.sock.close()


def wait_ready(i):
    end = time.monotonic() + 60 * SLOW
    while True:
        text = i.tool("status", check=False).stdout
        if all(re.search(rf"^\S+\s+{d}\s+\d+ ready", text, re.M) for d in (*DAEMONS, "pam", "smtpd", "submission", "login")):
            return
        assert time.monotonic() < end, text + i.tail()
        time.sleep(0.05)


def pid_of(i, role):
    parent = ROLES[role][1]
    program = role if parent == "master" else parent
    end = time.monotonic() + 30 * SLOW
    while time.monotonic() < end:
        for pid in i.pids(program):
            above = parent_of(pid)
            if above and (above == i.process.pid) == (parent == "master"):
                return pid
        time.sleep(0.05)
    raise AssertionError(f"no {role}\n{i.tail()}")


def peers_of(role):
    """Roles that may be at the other end of a channel of this one, but its parent."""
    mine = role if ROLES[role][1] == "master" else ROLES[role][1]
    found = [a if b == mine else b for a, b in EDGES if mine in (a, b)]
    if mine == role:  # children of peers speak to services, not to each other
        child = BY_NAME["child"]
        found += [CHILD[p] for p in found if p in CHILD and allowed(child, p, role)]
    return sorted(set(found))


RECEIVERS = ["qmgr", "maps", "dns", "auth", "broker", "nss", "pam", "pickup", "bounce", "smtp-client", "local", "imapd", "pop3d",
             "smtpd", "submission", "login", "smtpd-child", "submission-child", "imapd-child", "pop3d-child", "login-child",
             "delivery"]


@pytest.mark.parametrize("role", RECEIVERS)
def test_every_message_of_every_peer(busy, role):
    count = {"refused": 0, "faulty": 0, "odd": 0}
    if role == "delivery":
        deliver(busy)
    r = Receiver(role, pid_of(busy, role))
    for peer in peers_of(role):
        try_peer(r, peer, count)
    print(f"{role}: {count}")
    assert count["refused"] and r.lives()
    works_again(busy, r)


def works_again(i, r):
    """The test took its peers' places: with a successor that has the right ones the suite works."""
    os.kill(pid_of(i, r.role if ROLES[r.role][1] == "master" else ROLES[r.role][1]), 9)
    wait_ready(i)
    deliver(i)


def deliver(i):
    before = len(i.messages("u1@example.test"))

    def taken():
        with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=30 * SLOW) as s:
            try:
                s.sendmail("a@sender.example", ["u1@example.test"], b"Subject: after\r\n\r\nx\r\n")
            except (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError):
                return False  # a link to the successor is not there yet
        return True

    def there():
        i.tool("queue", "flush", check=False)  # it may have gone to who died
        return len(i.messages("u1@example.test")) > before

    wait(taken, 30, "a message that is taken")
    wait(there, 30, "the message")


def test_a_zygote_cannot_use_up_the_descriptors(make_instance):
    """Its children have at most half of them; the rest is for the others, and mail goes on."""
    i = make_instance(start=False, allow_deaths=True)
    i.command = ["prlimit", "--nofile=256"]
    i.start()
    r = Receiver("qmgr", pid_of(i, "qmgr"))
    held = []
    with r.link("submission") as zygote:
        for n in range(300):
            mine, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            send(zygote, struct.pack("<HI", BY_NAME["child"].number, n), far.fileno())
            far.close()
            held.append(mine)
        [line] = i.wait_log("error: children-limited ", 30)
        assert re.search(r"qmgr\[.* peer=submission children=128 remedy=.*open files", line)
        assert is_closed(held[-1])
        deliver(i)
        assert [closed_now(s) for s in held] == [False] * 128 + [True] * 172
        open_files = len(os.listdir(f"/proc/{r.pid}/fd"))
        held[0].close()  # one that leaves makes room
        wait(lambda: len(os.listdir(f"/proc/{r.pid}/fd")) < open_files, 30, "its end")
        mine, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        send(zygote, struct.pack("<HI", BY_NAME["child"].number, 999), far.fileno())
        far.close()
        wait(lambda: len(os.listdir(f"/proc/{r.pid}/fd")) >= open_files, 30, "the new one")
        assert not closed_now(mine) and r.lives()
        for s in [mine, *held]:
            s.close()
    deliver(i)


def closed_now(sock):
    sock.settimeout(0)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_the_log_counts_and_lives(busy):
    """Records are shared by all: one that does not decode is counted, and the next is written."""
    pid = pid_of(busy, "log")
    shared = socket.socket(fileno=steal_socket(pid_of(busy, "pickup"), 5))
    data, lengths = encode(BY_NAME["log_records"], full=True)
    for n in range(1, len(data)):
        send(shared, data[:n])
    for at in lengths:
        for lie in (2, 2**31 - 1, 2**32 - 1):
            send(shared, data[:at] + struct.pack("<I", lie) + data[at + 4:])
    for t in TYPES:
        if not allowed(t, "pickup", "log"):
            send(shared, encode(t)[0])
    shared.close()
    busy.tool("reload")
    busy.wait_log("reload", seconds=20)
    assert pid in busy.pids("log")


def test_master_bears_any_daemon(busy):
    """To master a daemon that breaks the rules is a dead one: it gets a successor, and master lives."""
    cases = [encode(BY_NAME["stats"])[0][:9], encode(BY_NAME["stop"])[0], b"\xff", encode(BY_NAME["ready"], full="ends")[0]]
    if LONG:
        cases += [encode(t)[0] for t in TYPES if not allowed(t, "pickup", "master")]
        data = encode(BY_NAME["ready"], full=True)[0]
        cases += [data[:n] for n in range(1, len(data))]
    master = busy.process.pid
    for data in cases:
        pid = pid_of(busy, "pickup")
        with socket.socket(fileno=steal_socket(pid, 3)) as s:
            send(s, data)
        end = time.monotonic() + 60 * SLOW
        while pid in busy.pids("pickup") or not busy.pids("pickup"):
            assert time.monotonic() < end, (data, busy.tail())
            time.sleep(0.02)
    for full in (False, True, "ends"):  # answers to nothing
        with socket.socket(fileno=steal_socket(pid_of(busy, "pickup"), 3)) as s:
            for name in "stats", "control_reply":
                send(s, encode(BY_NAME[name], 999, full)[0])
    assert busy.process.poll() is None and busy.process.pid == master
    assert busy.tool("status").returncode == 0


def test_a_child_that_breaks_its_channels(make_instance):
    """A child of the receiver that its peers shut out gets new channels, and its session goes on; who needs them again and
    again gets no more: its sessions end with 421, and others take its place."""
    i = make_instance(allow_deaths=True)

    def channels():
        """The child's descriptors whose other ends its peers have."""
        peers, theirs = peer_inodes(), {inode for name in ("qmgr", "maps", "dns", "auth") for inode in sockets(pid_of(i, name))}
        return [fd for inode, fd in sockets(child).items() if peers.get(inode) in theirs]

    def spoil():
        before = set(channels())
        assert len(before) == 4
        for fd in before:
            with socket.socket(fileno=steal_socket(child, fd)) as s:
                send(s, b"\xff\xff not a message")

    def wait(what):
        end = time.monotonic() + 20 * SLOW
        while not what():
            assert time.monotonic() < end, i.tail()
            time.sleep(0.02)

    def child_of_last_client(count):
        line = i.wait_log(rf"smtp-connect .*service=127.0.0.1:{i.port['smtp']}$", count=count)[-1]
        return int(re.search(r"smtpd-child\[(\d+)\]", line)[1])

    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=20 * SLOW) as s:
        s.ehlo("x")
        child = child_of_last_client(2)
        spoil()
        i.wait_log("ipc-violation peer=smtpd-child", count=4)
        wait(lambda: len(channels()) == 4)
        assert s.sendmail("a@sender.example", ["u1@example.test"], b"Subject: x\r\n\r\nx\r\n") == {}
        spoil()
        shut = i.wait_log('smtpd.*ipc-violation peer=smtpd-child .*reason="its links end again and again"')
        assert f"pid={child} " in shut[0]
        assert s.getreply()[0] == 421
    deliver(i)
    assert child_of_last_client(3) != child
    assert "service-died" not in i.log() and "child-died" not in i.log()


# --- lies that are well-formed ---

def encode_with(name, ident, **values):
    """A message with these fields, the others empty; a list is one item, given as a dict."""
    def put(fields, values):
        out = bytearray()
        for kind, field, *rest in fields:
            v = values.get(field)
            if kind in WIDTH:
                out += (v or 0).to_bytes(WIDTH[kind], "little")
            elif kind == "list":
                item = put(ITEMS[rest[0]], v) if v else b""
                out += struct.pack("<II", 1 if v else 0, len(item)) + item
            else:
                out += struct.pack("<I", len(v or b"")) + (v or b"")
        return bytes(out)

    t = BY_NAME[name]
    return struct.pack("<HI", t.number, ident) + put(t.fields, values)


ID_DIGITS = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def next_id(queue_id):
    """The one after it, where the clock is behind the IDs."""
    n = 0
    for c in queue_id:
        n = n << 5 | ID_DIGITS.index(c)
    n += 1 << 10
    return bytes(ID_DIGITS[n >> 5 * k & 31] for k in reversed(range(len(queue_id))))


def test_a_commit_before_its_file_is_there(busy):
    """A receiver that guesses the ID of the file it asked for and does not wait for it: refused, and qmgr has no
    message that it forgot while a thread works for it."""
    busy.set(incoming_spare_files=0)
    busy.reload()
    clock = busy.spool / "queue" / "clock"
    ahead = int.from_bytes(clock.read_bytes()[:8], "little") + 3600 * 500000  # from now on IDs count up by one
    clock.write_bytes(ahead.to_bytes(8, "little") + clock.read_bytes()[8:])
    pid = pid_of(busy, "qmgr")
    os.kill(pid, 9)
    while pid_of(busy, "qmgr") == pid:
        time.sleep(0.02)
    wait_ready(busy)
    r, faults = Receiver("qmgr", pid_of(busy, "qmgr")), busy.log().count("event=queue-commit ")
    with r.link("smtpd-child") as s:
        s.settimeout(30 * SLOW)
        send(s, encode_with("mail_open", 1, size=100))
        opened = s.recv(65536)
        name = opened[10:10 + struct.unpack_from("<I", opened, 6)[0]]
        for n in range(2, 52):
            name = next_id(name)
            os.kill(r.pid, 19)
            send(s, encode_with("mail_open", n, size=100))
            send(s, encode_with("mail_commit", n, total=1, queue_id=name, sender=b"a@sender.example", rcpts={"address": b"u1@example.test"}))
            os.kill(r.pid, 18)
            kind, ident = struct.unpack_from("<HI", s.recv(65536))
            assert (kind, ident) == (BY_NAME["mail_result"].number, n)
        send(s, encode_with("mail_abort", 1))
    wait(lambda: "open_files=0" in busy.tool("status").stdout, 30, "the files were closed")
    assert r.lives() and busy.log().count("event=queue-commit ") == faults
    del busy.main["incoming_spare_files"]
    busy.set()
    busy.reload()
    works_again(busy, r)


def test_an_envelope_without_all_its_recipients(busy):
    """What comes behind a refused part is not a message for the rest."""
    r = Receiver("qmgr", pid_of(busy, "qmgr"))
    to = {"address": b"u1@example.test"}
    with r.link("smtpd-child") as s:
        for ident, parts, total, code in (1, 0, 1, 250), (2, 1, 2, 250), (3, 1, 3, 452), (4, 2, 1, 452), (5, 0, 70000, 554):
            for _ in range(parts):
                send(s, encode_with("mail_rcpts", ident, rcpts=to))
            send(s, encode_with("mail_commit", ident, sender=b"a@sender.example", total=total, rcpts=to, size=2, content=b"\r\n"))
            assert struct.unpack_from("<H", answer(s, "mail_result"))[0] == code, ident
    works_again(busy, r)


def answer(s, name):
    """The fields behind the head of the next message of that type."""
    s.settimeout(30 * SLOW)
    while True:
        data, fds, _, _ = socket.recv_fds(s, 65536, 1)
        for fd in fds:
            os.close(fd)
        assert data, f"closed, in the place of {name}"
        if struct.unpack_from("<H", data)[0] == BY_NAME[name].number:
            return data[6:]


def token_of(s, service):
    """Logs in as the front end of a service would, over its channel to auth."""
    send(s, encode_with("auth_start", 1, service=service, mechanism=b"PLAIN", tls=1, has_initial=1, client=b"192.0.2.1",
                        initial=b"\0u1@example.test\0pass1"))
    done = answer(s, "auth_done")
    n = struct.unpack_from("<I", done, 1)[0]
    assert done[0] == 0 and done[5:5 + n] == b"u1@example.test"
    return done[9 + n:9 + n + 32]


def test_a_token_is_of_one_service_and_opens_one_session(busy):
    """Login cannot name a user: what it can show is what auth gave it, for that service, once."""
    auth, broker, qmgr = (Receiver(role, pid_of(busy, role)) for role in ("auth", "broker", "qmgr"))

    def opened(s, service, token):
        send(s, encode_with("session_open", 1, token=token, service=service, client=b"192.0.2.1", session=b"s"))
        return answer(s, "session_opened")[0]

    def taken(s, token):
        send(s, encode_with("mail_commit", 1, total=1, token=token, sender=b"u1@example.test", rcpts={"address": b"u1@example.test"},
                            size=2, content=b"\r\n"))
        return struct.unpack_from("<H", answer(s, "mail_result"))[0]

    with auth.link("login-child") as login_, auth.link("submission-child") as submit, broker.link("login-child") as b, \
            qmgr.link("submission-child") as q:
        imap, smtp = token_of(login_, b"imap"), token_of(submit, b"smtp")
        for token in os.urandom(32), imap[:-1]:
            assert opened(b, b"imap", token) == 1
            assert taken(q, token) // 100 in (4, 5)
        assert opened(b, b"imap", imap) == 0
        assert taken(q, smtp) == taken(q, smtp) == 250
        assert opened(b, b"imap", imap) == 1, "a second session"
        # shown where it does not belong it is refused, and spent
        imap, smtp = token_of(login_, b"imap"), token_of(submit, b"smtp")
        assert opened(b, b"pop3", imap) == opened(b, b"imap", imap) == 1
        assert opened(b, b"imap", smtp) == 1 and taken(q, smtp) // 100 in (4, 5)
        assert taken(q, token_of(login_, b"imap")) // 100 in (4, 5)
    for r in auth, broker, qmgr:
        works_again(busy, r)


def test_nobody_answers_for_another(busy):
    """A daemon that was taken over cannot say what `bulkhead queue` prints: only qmgr's word counts."""
    pid = pid_of(busy, "qmgr")
    os.kill(pid, 19)
    try:
        asking = subprocess.Popen([BIN / "bulkhead", "-c", busy.etc, "queue", "list"], stdout=subprocess.PIPE, text=True)
        with socket.socket(fileno=steal_socket(pid_of(busy, "pickup"), 3)) as s:
            end = time.monotonic() + 1
            while time.monotonic() < end:
                for ident in range(1, 200):
                    send(s, encode_with("control_reply", ident, text=b"forged\n"))
                time.sleep(0.05)
    finally:
        os.kill(pid, 18)
    assert asking.communicate(timeout=30 * SLOW)[0] == "The queue is empty.\n"
