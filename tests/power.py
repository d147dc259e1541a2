#!/usr/bin/env python3
"""power: cuts the power under load, mounts the disk again, and compares what was acknowledged with what is there.

    tests/power.py [--fs ext4|xfs] [--way shutdown|clone] [--cuts N] [--seed N] [--forget] [--folder DIR]

Spool and mail of an instance lie on a loop-mounted image. A cut is either the shutdown ioctl without a flush of the log,
or (clone) a reflink clone of the image that is taken while everything runs. Then all daemons are killed, the image is
mounted (the journal is replayed), looked at, and the instance is started on it for the next cut. After some cuts
(a block) the queue is drained and everything is compared by recipient. What was acknowledged after the cut does not count:
a client books an answer under the lock that the cut is made under. It judges the order of the journal, not the cache of
a drive. The last line is JSON of what was counted. --forget is the control: every call that syncs is answered with success and not made; mail must be lost then.
"""
import argparse
import collections
import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import pathlib
import platform
import random
import re
import shutil
import signal
import smtplib
import struct
import subprocess
import sys
import tempfile
import threading
import time

import power_imap
from instance import Instance, SLOW
from power_load import Ledger, Over, SmtpClient, Admin
from sink import NextHop
from test_local import Users

SHUTDOWN, NO_LOG_FLUSH, CLONE = 0x8004587D, 2, 0x40049409
SENDER = "u3@example.test"
SLOT_STATES = {0: "todo", 2: "done", 3: "failed", 4: "deferred"}
FOUND = {"open", "held", *SLOT_STATES.values()}  # what many cuts must have met
VIRTUAL = ("u1", "u2", "u3", "box1", "box2")


class Disk:
    """An image with a file system of its own, mounted at .mount."""

    def __init__(self, folder, fs, clone=False):
        self.folder, self.fs, self.clone = pathlib.Path(folder), fs, clone
        self.mount, self.outer = self.folder / "disk", self.folder / "outer"
        self.mounted = set()
        self.mount.mkdir(parents=True)
        self.image = self.folder / "image"
        if clone:  # of a file, so the file lies on a file system that can
            self.outer.mkdir()
            self.format(self.folder / "outer.image", "xfs", "2G")
            self.attach(self.folder / "outer.image", self.outer)
            self.image = self.outer / "image"

    @staticmethod
    def format(image, fs, size):
        subprocess.run(["truncate", "-s", "0", image], check=True)
        subprocess.run(["truncate", "-s", size, image], check=True)
        subprocess.run([f"mkfs.{fs}", "-q", "-F" if fs == "ext4" else "-f", image], check=True)

    def attach(self, image, mount):
        subprocess.run(["mount", "-o", "loop", image, mount], check=True)
        self.mounted.add(mount)

    def detach(self, mount):
        """Whoever was killed may not have ended yet."""
        end = time.monotonic() + 20 * SLOW
        while mount in self.mounted:
            done = subprocess.run(["umount", mount], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                self.mounted.discard(mount)
            elif time.monotonic() > end:
                raise AssertionError(f"umount {mount}: {done.stderr}")
            else:
                time.sleep(0.02)

    def make(self):
        self.detach(self.mount)
        self.format(self.image, self.fs, "320M")
        self.attach(self.image, self.mount)
        self.mount.chmod(0o755)

    def cut(self):
        if self.clone:
            with open(self.image, "rb") as old, open(self.outer / "clone", "wb") as new:
                fcntl.ioctl(new.fileno(), CLONE, old.fileno())
            return
        fd = os.open(self.mount, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def replay(self):
        self.detach(self.mount)
        if self.clone:
            os.replace(self.outer / "clone", self.image)
        self.attach(self.image, self.mount)

    def close(self):
        self.detach(self.mount)
        self.detach(self.outer)


def usable():
    """None, or why no power can be cut here."""
    if os.geteuid() != 0:
        return "needs root"
    for program in ("mkfs.ext4", "mkfs.xfs"):
        if not shutil.which(program):
            return f"needs {program}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            disk = Disk(folder, "ext4")
            disk.make()
            disk.close()
        except (subprocess.CalledProcessError, OSError):
            return "no loop mounts here"
    return None


def own_mounts():
    """A mount namespace of our own: one that somebody makes beside us would hold a copy of the mount, and an XFS that is mounted
    there still is refused here, or is the one that was shut down."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x20000):  # CLONE_NEWNS
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def forget_syncs():
    """From here on, and in every child, calls that sync succeed and do nothing. Jails come on top of it as ever."""
    numbers = {"x86_64": (74, 75, 277, 306, 26, 162), "aarch64": (82, 83, 84, 267, 227, 81)}[platform.machine()]
    load, equal, give = 0x20, 0x15, 0x06  # of the call's number
    code = [struct.pack("HBBI", load, 0, 0, 0)]
    for k, n in enumerate(numbers):
        code.append(struct.pack("HBBI", equal, len(numbers) - k, 0, n))
    code.append(struct.pack("HBBI", give, 0, 0, 0x7FFF0000))  # allow
    code.append(struct.pack("HBBI", give, 0, 0, 0x00050000))  # error 0
    text = ctypes.create_string_buffer(b"".join(code))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    program = Program(len(code), ctypes.addressof(text))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(22, 2, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


# --- what lies on the disk ---

TOKEN = re.compile(rb"^Subject: (T\w+)", re.M)


def digest(body):
    return hashlib.sha256(body.replace(b"\r\n", b"\n").strip()).hexdigest()


class Seen:
    """What a look at the disk found: tokens by place, halves, and the queue."""

    def __init__(self):
        self.places = collections.defaultdict(collections.Counter)  # token: {place: copies}
        self.queued, self.half, self.states = set(), [], collections.Counter()

    def mailbox(self, place, folder, sent):
        for path in sorted([*folder.glob("new/*"), *folder.glob("cur/*")]):
            content = path.read_bytes()
            token = self.message(place, content, sent)
            if not token:
                self.half.append(f"{path}: {len(content)} bytes: {content[:200]!r}")

    def message(self, place, content, sent):
        head, _, body = content.replace(b"\r\n", b"\n").partition(b"\n\n")
        found = TOKEN.search(head)
        if found and sent.get(found[1].decode()) == digest(body):
            self.places[found[1].decode()][place] += 1
            return True
        edge = re.search(rb'boundary="([^"]+)"', head)  # a notice: it names the message it is about
        about = TOKEN.search(body)
        if edge and about and body.rstrip().endswith(b"--" + edge[1] + b"--"):
            self.places[about[1].decode()]["notice"] += 1
            return True
        return False

    def queue(self, folder):
        for path in folder.glob("?/*"):
            content, mode = path.read_bytes(), path.stat().st_mode & 0o777
            if mode == 0o200:
                self.states["open"] += 1
            elif len(content) < 64 or content[-64:-56] != b"BHQUEUE1":
                self.states["uncommitted"] += 1
            else:
                self.queue_file(content, mode)
        self.states["open"] += sum(1 for _ in folder.glob("incoming/*"))
        for path in folder.glob("corrupt/*"):
            self.half.append(f"{path} was set aside")

    def queue_file(self, content, mode):
        record, _, slots, at, _, _, size = struct.unpack_from("<QIIQQQQ", content, len(content) - 56)
        states = {content[at + size * k] for k in range(slots)}
        if not states <= set(SLOT_STATES):
            self.half.append(f"a queue file has slots of states {states}")
        for name in {SLOT_STATES.get(number) for number in states} - {None}:
            self.states[name] += 1
        self.states["held"] += mode == 0o700
        for token in TOKEN.findall(content[:record]):
            self.queued.add(token.decode())


# --- a machine whose power is cut ---

class Machine:
    def __init__(self, folder, fs="ext4", way="shutdown", seed=1, forget=False, log=None):
        self.folder, self.random, self.forget = pathlib.Path(folder), random.Random(seed), forget
        self.say = log or (lambda text: None)  # of each problem, as it is found
        self.disk = Disk(self.folder / "d", fs, way == "clone")
        self.users = Users(self.disk.mount)
        self.problems, self.lost, self.total = [], [], collections.Counter()
        self.i = self.sink = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.ExitStack() as stack:
            stack.callback(self.users.close)
            stack.callback(self.disk.close)
            if self.sink:
                stack.callback(self.sink.close)
            if self.i:
                stack.callback(self.i.kill)

    def begin(self):
        """A fresh disk, and the instance on it."""
        self.disk.make()
        i = self.i = self.i or self.instance()
        i.mail.mkdir(exist_ok=True)
        (self.disk.mount / "home").mkdir(mode=0o755)
        self.system_users()
        shutil.rmtree(i.data, ignore_errors=True)  # the users, and with them their homes, are made anew
        self.sink.messages.clear()
        self.sink.answers.update({"defer@out.test": "450 4.2.0 not now", "bad@out.test": "550 5.1.1 no such user"})
        self.sink.delays["slow@out.test"] = 0.3
        self.ledger, self.held, self.deleted, self.waiting = Ledger(self.disk), set(), set(), []
        self.boxes = [power_imap.Box(self, f"box{n}@example.test", "pass") for n in (1, 2)]
        self.start()
        self.ledger.begin(100)
        for box in self.boxes:
            box.make()
        self.ledger.over = True
        subprocess.run(["sync", "-f", self.disk.mount], check=True)

    def instance(self):
        i = Instance(self.folder / "i", allow_deaths=True, users={f"{u}@example.test": "pass" for u in VIRTUAL}, main={
            "mydestination": "sys.test, localhost", "myorigin": "sys.test", "home_mailbox": "Maildir/",
            "relay_domains": "out.test", "minimal_backoff_time": "1s", "maximal_backoff_time": "2s",
            "smtp_tls_security_level": "none", "message_size_limit": "1M", "imap_special_folders": "",
            "smtpd_client_connection_count_limit": "0", "delay_warning_time": "0"})
        rows = i.front_ends()  # those that are used: each start is quicker
        ends = [rows.index(line) for line in rows if line[0] != " "] + [len(rows)]
        i.services = [line for a, b in zip(ends, ends[1:]) for line in rows[a:b]
                      if rows[a].partition(" ")[0].endswith((f":{i.port['smtp']}", f":{i.port['imaps']}"))]
        i.mail, i.spool = self.disk.mount / "mail", self.disk.mount / "spool"
        i.command = [sys.executable, __file__, "--exec"] if self.forget else []
        i.set(smtp_client_ports=f"25, {i.port['sink']}", transport_maps=f"inline:{{ out.test=smtp:[127.0.0.1]:{i.port['sink']} }}",
              virtual_mailbox_base=i.mail, queue_directory=i.spool)
        self.sink = NextHop(i.port["sink"])
        return i

    def system_users(self):
        """s1 forwards to itself and to s2; both live on the disk."""
        if not self.users.names:
            self.users.add(), self.users.add()
        a, b = self.users.names
        for name in (a, b):
            home = self.users.homes[name]
            home.mkdir(exist_ok=True)
            shutil.chown(home, name, name)
            home.chmod(0o750)
        self.users.write(a, ".forward", f"\\{a}, {b}\n")
        system = {"s1": f"{a}@sys.test", "s2": f"{b}@sys.test"}
        relayed = ("a@out.test", "slow@out.test", "defer@out.test")
        self.address = {**{u: f"{u}@example.test" for u in VIRTUAL}, **system, **{r: r for r in relayed}, "bad": "bad@out.test"}
        self.ends = {**{u: [u] for u in VIRTUAL}, "s1": ["s1", "s2"], "s2": ["s2"], **{r: [r] for r in relayed}, "bad": ["notice"]}

    def start(self):
        self.i.set(direct_delivery=self.random.choice(("yes", "no")))
        self.i.log_file.unlink(missing_ok=True)
        self.i.start()

    def mixes(self):
        """Who works until the next cut: everybody, or one client alone, whose last act nobody else's sync covers."""
        smtp = [SmtpClient(self, f"c{k}") for k in range(6)]
        every, admin = [*smtp, *self.boxes, Admin(self)], [Admin(self)] if self.waiting else smtp
        return self.random.choice((every, every, [self.boxes[0]], [smtp[0]], smtp, admin)) if self.ledger.acked else every

    def round(self):
        """Load, a cut, the replay, a look; the instance runs again at the end."""
        clients = self.mixes()
        alone = min(12, len(self.waiting)) if isinstance(clients[0], Admin) else 12
        self.ledger.begin(self.random.randint(1, 60 if len(clients) > 1 else alone))
        threads = [threading.Thread(target=self.run, args=(c,), daemon=True) for c in clients]
        for t in threads:
            t.start()
        if not self.ledger.event.wait(6 * SLOW):
            with self.ledger.lock:
                self.ledger.cut()
        time.sleep(self.random.choice((0, 0, 0.02)))
        self.i.kill()
        for t in threads:
            t.join(60)
        for client in clients:
            client.close()
        self.disk.replay()
        self.total["cuts"] += 1
        self.total["acknowledged"] = self.total["before"] + self.ledger.count
        self.look()
        self.start()
        for box in self.boxes:
            box.verify()

    def run(self, client):
        while not self.ledger.over:
            try:
                client.turn()
            except Over:
                return
            except power_imap.ERRORS + (smtplib.SMTPException, OSError, AssertionError, TypeError):
                client.close()
                if not self.ledger.over:
                    self.total["client errors"] += 1
                    time.sleep(0.05)

    # --- judging ---

    def problem(self, text):
        self.problems.append(f"cut {self.total['cuts']}: {text}")
        self.say(self.problems[-1])

    def see(self):
        seen, sent = Seen(), self.ledger.sent
        for user in VIRTUAL:
            box = self.i.mail / "example.test" / user / "Maildir"
            for folder in (box, *box.glob(".*")):
                seen.mailbox(user, folder, sent)
        for place, name in zip(("s1", "s2"), self.users.names):
            seen.mailbox(place, self.users.homes[name] / "Maildir", sent)
        with self.sink.lock:
            relayed = list(self.sink.messages)
        for message in relayed:
            for recipient in message.recipients:
                if not seen.message(recipient, message.content, sent):
                    seen.half.append(f"the next hop got {message.content[:200]!r}")
        seen.queue(self.i.spool / "queue")
        for box in self.boxes:
            for token in box.removed + (list(box.doubt.tokens) if box.doubt.gone else []):
                seen.places[token][box.place] += 1
        return seen

    def look(self, drained=False):
        """Acknowledged within delivered or queued; nothing half."""
        seen = self.see()
        for text in seen.half:
            self.problem(f"half: {text}")
        for token, names in self.ledger.acked.items():
            missing = {end for n in names for end in self.ends[n]} - set(seen.places.get(token, ()))
            if missing and (drained or token not in seen.queued):
                self.lost.append(token)
                self.problem(f"lost: {token} to {names}, not at {sorted(missing)}")
        if not drained:
            for name, n in seen.states.items():
                self.total[f"found {name}"] += n
        return seen

    def drain(self):
        """Everything that waits goes on its way; then copies are counted."""
        held = {p.name for p in (self.i.spool / "queue").glob("?/*") if p.stat().st_mode & 0o777 == 0o700}
        for name in sorted(self.held - held):
            self.problem(f"the hold of {name} is forgotten")
        self.total["held"] += len(self.held)
        self.total["deleted"] += len(self.deleted)
        self.sink.answers.pop("defer@out.test")
        self.i.tool("queue", "release", SENDER, check=False)
        end = time.monotonic() + 60 * SLOW
        while list((self.i.spool / "queue").glob("?/*")) and time.monotonic() < end:
            self.i.tool("queue", "flush", check=False)
            time.sleep(0.1)
        seen = self.look(drained=True)
        if seen.queued:
            self.problem(f"still queued after a minute: {self.i.tool('queue', 'list', check=False).stdout[:2000]}")
        for token in self.deleted & set(seen.places):
            self.problem(f"{token} was deleted from the queue, and went to {list(seen.places[token])}")
        self.count_copies(seen)

    def count_copies(self, seen):
        for token, places in seen.places.items():
            for place, n in places.items():
                want = sum(self.ends[r].count(place) for r in set(self.ledger.acked.get(token, ()))) or 1
                kind = "relayed" if "@" in place else place if place == "notice" else "forwarded" if place == "s2" else "stored"
                if n > want and not place.startswith("box"):  # those are the clients' to compare
                    self.total[f"twice: {kind}"] += n - want
                    if kind == "stored":  # the derived name is there and tells
                        self.problem(f"{token} is {n} times at {place}, {want} sent")

    def block(self, cuts):
        self.begin()
        for _ in range(cuts):
            self.round()
        self.drain()
        for box in self.boxes:
            box.close()
        self.total["before"] += self.ledger.count
        self.i.kill()
        self.total["blocks"] += 1


def run(folder, cuts, a_block=10, **options):
    """{what: count}, problems, lost tokens."""
    with Machine(folder, **options) as m:
        try:
            while m.total["cuts"] < cuts and not (m.forget and m.lost):
                m.block(min(a_block, cuts - m.total["cuts"]))
        except BaseException:
            print("\n".join(m.problems), m.i and m.i.log()[-4000:], file=sys.stderr)
            raise
        m.total.pop("before")
        return m.total, m.problems, m.lost


def main():
    if sys.argv[1:2] == ["--exec"]:
        forget_syncs()
        os.execv(sys.argv[2], sys.argv[2:])
    p = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    p.add_argument("--fs", default="ext4", choices=("ext4", "xfs"))
    p.add_argument("--way", default="shutdown", choices=("shutdown", "clone"))
    p.add_argument("--cuts", type=int, default=100)
    p.add_argument("--block", type=int, default=10, help="cuts between two fresh disks")
    p.add_argument("--seed", type=int, default=time.time_ns() % 1000000)
    p.add_argument("--forget", action="store_true", help="nothing is synced: ends with the block that lost mail, as one must")
    p.add_argument("--folder")
    a = p.parse_args()
    why = usable()
    if why:
        sys.exit(f"power: {why}")
    own_mounts()
    start = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unmounts, and removes the users
    with tempfile.TemporaryDirectory(prefix="bulkhead-power-", dir=a.folder) as folder:
        os.chmod(folder, 0o755)
        total, problems, lost = run(folder, a.cuts, a.block, fs=a.fs, way=a.way, seed=a.seed, forget=a.forget, log=print)
    total["seconds"] = round(time.monotonic() - start)
    print(json.dumps({"fs": a.fs, "way": a.way, "seed": a.seed, "forget": a.forget, **total, "problems": len(problems), "lost": len(lost)}))
    sys.exit(1 if bool(problems) != a.forget else 0)


if __name__ == "__main__":
    main()
