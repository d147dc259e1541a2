"""Reads and plays the sessions of tests/sessions/*.txt; their format stands in tests/sessions/README."""
import base64
import ctypes
import os
import pathlib
import platform
import re
import shlex
import socket
import ssl
import subprocess
import time

from instance import BIN, SLOW

HERE = pathlib.Path(__file__).resolve().parent / "sessions"
SMTP = ("smtp", "submission", "submissions", "lmtp", "local")
WRAPPED = ("submissions", "imaps", "pop3s")
USERS = {f"u{n}@example.test": f"pass{n}" for n in (1, 2, 3)}
# Replies of SMTP that have no enhanced code: RFC 2034 section 4, and 334 and 354 are neither good nor bad.
PLAIN_REPLY = re.compile(r"220 mx|250-mx|250 mx|334|354|EOF")


def octets(text):
    """The escapes of a C> line."""
    text = re.sub(r"\{(\d+):([^}]*)\}", lambda m: m[2] * int(m[1]), text)
    out, at = bytearray(), 0
    names = {"r": 13, "n": 10, "0": 0, "\\": 92}
    while at < len(text):
        if text[at] == "\\" and text[at + 1] == "x":
            out.append(int(text[at + 2:at + 4], 16))
            at += 4
        elif text[at] == "\\":
            out.append(names[text[at + 1]])
            at += 2
        else:
            out += text[at].encode()
            at += 1
    return bytes(out)


class Session:
    def __init__(self, name, service, instance):
        self.name, self.instance = name, instance or "default"
        self.service, _, plain = service.partition(":")
        self.plain, self.lines = bool(plain), []


class Table:
    """Rows of commands, columns of states; each cell is a session of its own."""

    def __init__(self, name, service, instance):
        self.name, self.service, self.instance = name, service, instance or "default"
        self.states, self.columns, self.rows = {}, [], []

    def take(self, line):
        if line.startswith("state "):
            name, _, steps = line[6:].partition(":")
            once, again, each = f" {steps}".partition(" // ")
            split = [[s.strip() for s in part.split(" / ") if s.strip()] for part in (once, each)]
            self.states[name.strip()] = split if again else [None, split[0]]
            return
        command, *cells = [c.strip() for c in line.split("|")]
        if not self.columns:
            self.columns = cells
            return
        assert len(cells) == len(self.columns), f"{self.name}: {line}"
        self.rows.append((command, cells))

    def column(self, n):
        return [(command, cells[n]) for command, cells in self.rows if cells[n] != "-"]


def load(only=None):
    """All sessions, all tables, and name -> lines of each instance. But servers.txt."""
    sessions, tables, instances = [], [], {}
    for path in sorted(HERE.glob("*.txt")) if only is None else [HERE / only]:
        if path.name == "servers.txt" and not only:
            continue
        into = None
        for line in path.read_text().split("\n"):
            header = re.match(r"(===|###) (.*) @([\w:-]+)(?: on (\w+))?$", line)
            if header:
                into = (Session if header[1] == "===" else Table)(*header.groups()[1:])
                (sessions if header[1] == "===" else tables).append(into)
            elif line.startswith("--- "):
                into = instances.setdefault(line[4:], [])
            elif not line.strip() or line.startswith("#"):
                continue
            elif isinstance(into, Table):
                into.take(line)
            elif isinstance(into, list):
                into.append(line)
            else:
                times, _, rest = line.partition(" x ")
                into.lines.extend([rest] * int(times) if times.isdigit() else [line])
    return sessions, tables, instances


def as_user(uid):
    """Of this thread only, so that the kernel tells that uid to who accepts."""
    number = {"x86_64": 117, "aarch64": 147}[platform.machine()]
    assert ctypes.CDLL(None).syscall(number, ctypes.c_uint(-1).value, uid, ctypes.c_uint(-1).value) == 0


class Wire:
    """One connection of a client that says exactly what it is told."""

    def __init__(self, player, service, plain=False, uid=None):
        i = player.i
        self.player, self.service, self.said = player, service, b""
        if service == "local":
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(30 * SLOW)
            if uid is not None:
                as_user(uid)
            try:
                self.sock.connect(str(i.run / "submit"))
            finally:
                if uid is not None:
                    as_user(0)
        else:
            self.sock = socket.create_connection(("127.0.0.1", i.port[service]), 30 * SLOW, (player.address, 0))
        self.file = self.sock.makefile("rb")
        if service in WRAPPED and not plain:
            self.tls()
        if not plain:
            got = self.reply()
            assert got.startswith((b"220 ", b"* OK ", b"+OK ")), f"greeting: {got!r}"

    def tls(self):
        p = self.player
        self.sock = p.context.wrap_socket(self.sock, server_hostname="localhost", session=p.ticket)
        self.file = self.sock.makefile("rb")

    def reply(self):
        """A whole reply of SMTP, a line of the others."""
        lines = []
        while True:
            try:
                line = self.file.readline()
            except (ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
                line = b""
            if not line:
                return b"".join(lines) + b"EOF"
            lines.append(line)
            if self.service not in SMTP or line[3:4] != b"-":
                return b"".join(lines)

    def send(self, data):
        self.said = data[-100:]
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            pass  # the server has shut out who still speaks: what it said last is there to be read

    def say(self, data):
        self.send(data + b"\r\n")
        return self.reply()

    def until(self, *starts):
        got = b""
        while got != b"EOF":
            got = self.reply()
            if got.startswith(starts):
                return got
        return got

    def close(self):
        self.file.close()
        self.sock.close()


class Player:
    """Plays one session. address: of the client, its own, so that its lines in the log are known."""

    def __init__(self, i, address, number, drops):
        self.i, self.address, self.number, self.drops = i, address, number, drops
        self.context, self.ticket, self.wires, self.now = i.tls(), None, [], 0
        self.user = f"u{number % 3 + 1}@example.test"
        self.folder, self.drop, self.ended = f"f{number}", None, False
        self.run = None

    @property
    def w(self):
        return self.wires[self.now]

    def open(self, service, plain=False, uid=None):
        self.wires.append(Wire(self, service, plain, uid))
        self.now = len(self.wires) - 1

    def close(self):
        for w in self.wires:
            w.close()
        self.wires = []
        if self.drop:
            self.drops.put(self.drop)
            self.drop = None

    # --- helpers that the texts name ---

    def login(self, words):
        service = self.w.service
        user = "u1@example.test" if service in SMTP else self.user
        user, password = words or (user, USERS[user])
        if service in ("submission", "submissions"):
            assert self.w.say(b"EHLO c").startswith(b"250-")
            got = self.w.say(b"AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()))
            assert got.startswith(b"235 2.7.0"), got
        elif service in ("imap", "imaps"):
            self.w.send(f"login LOGIN {user} {password}\r\n".encode())
            got = self.w.until(b"login ")
            assert got.startswith(b"login OK"), got
        else:
            self.maildrop()

    def lead(self, state):
        """SMTP: to that state of a good transaction, all replies checked."""
        own = self.w.service in ("submission", "submissions")
        hello, sender = ("LHLO" if self.w.service == "lmtp" else "EHLO"), "u1@example.test" if own else "a@client.example"
        steps = [("READY", f"{hello} c", "250-"), ("MAIL", f"MAIL FROM:<{sender}>", "250 2.1.0"),
                 ("RCPT", "RCPT TO:<u1@example.test>", "250 2.1.5"), ("DATA", "DATA", "354 ")]
        for name, command, want in steps:
            if name != "READY" or not own or state == "READY":
                got = self.w.say(command.encode())
                assert got.startswith(want.encode()), f"{command}: {got}"
            if name == state:
                break

    def maildrop(self):
        """POP3: a mailbox that no other session uses meanwhile, with three messages."""
        self.drop = user = self.drops.get()
        box = self.i.home(user) / "Maildir"
        assert self.w.say(b"USER " + user.encode()).startswith(b"+OK")
        owner = box.stat()
        for kind in ("new", "cur"):
            for old in (box / kind).iterdir():
                old.unlink()
        for n in range(1, 4):
            path = box / "new" / f"{time.time():.6f}.{n}.test"
            path.write_bytes(b"Subject: message %d\n\n" % n + b"line\n.dot\n" * n)
            os.chown(path, owner.st_uid, owner.st_gid)
        assert self.w.say(b"PASS pass").startswith(b"+OK"), "login"

    def make_folder(self, count):
        """IMAP: a folder of this session's own, with count messages, selected."""
        self.w.send(f"f CREATE {self.folder}\r\n".encode())
        assert self.w.until(b"f ").startswith(b"f OK")
        for n in range(1, count + 1):
            text = b"From: a@client.example\r\nSubject: message %d\r\n\r\nbody %d\r\n" % (n, n)
            self.w.send(b"f APPEND %s {%d}\r\n" % (self.folder.encode(), len(text)))
            assert self.w.until(b"+ ", b"f ").startswith(b"+ ")
            self.w.send(text + b"\r\n")
            assert self.w.until(b"f ").startswith(b"f OK")
        self.w.send(f"f SELECT {self.folder}\r\n".encode())
        assert self.w.until(b"f ").startswith(b"f OK")

    def sendmail(self, words, given=b""):
        args = [octets(w) for w in shlex.split(words)]
        self.run = subprocess.run([BIN / "sendmail", "-C", self.i.etc, *args], input=given, timeout=60 * SLOW,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)

    def check_exit(self, want):
        got = f"{self.run.returncode} {self.run.stderr.decode(errors='replace')}"
        assert got.startswith(want), f"X: {want}: {got!r}"

    def check_log(self, words):
        client = re.escape("local:0" if self.wires and self.wires[0].service == "local" else self.address)
        wanted = [words] if words.startswith("/") else words.split()
        pattern = rf"^(?=.*client=(?:[^ ]*\[)?{client}\]?(?: |$))" + "".join(f"(?=.*{re.escape(w)})" for w in wanted)
        self.i.wait_log(pattern, seconds=20)

    # --- lines ---

    def check(self, line, got):
        want = line[3:].replace("$F", self.folder)
        text = got.decode(errors="replace").replace("\r\n", "\n")
        pattern = ".*".join(re.escape(part) for part in want.split("{*}"))
        if want in ("EOF", "."):
            assert text.rstrip("\n") == want, f"{line}: {text!r}"
        else:
            assert re.match(pattern, text), f"{line}: {text[:300]!r} to {self.w.said!r}"

    def step(self, line):
        word, _, rest = line.partition(" ")
        if line.startswith("C:"):
            self.w.send(line[3:].replace("$F", self.folder).encode() + b"\r\n")
        elif line.startswith("C>"):
            self.w.send(octets(line[3:].replace("$F", self.folder)))
        elif line.startswith("S: "):
            self.check(line, self.w.reply())
            self.ended = line == "S: EOF"
        elif line == "TLS":
            self.w.tls()
        elif line == "CLOSE":
            self.w.close()
            self.ended = True
        elif word == "LOGIN":
            self.login(rest.split())
        elif line in ("READY", "MAIL", "RCPT", "DATA"):
            self.lead(line)
        elif word == "FOLDER":
            self.make_folder(int(rest))
        elif word == "OPEN":
            self.open(*rest.split(":"))
        elif word == "USE":
            self.now = int(rest) - 1
        elif line == "KEEP":
            self.ticket = self.w.sock.session
            assert self.ticket.has_ticket
        elif word == "RESUMED":
            assert self.w.sock.session_reused == (rest == "yes"), line
        elif word == "X:":
            self.check_exit(rest)
        elif word == "L:":
            self.check_log(rest)
        else:
            raise AssertionError(f"no such line: {line}")

    def play(self, lines):
        at = 0
        while at < len(lines):
            line = lines[at]
            if line.startswith("R: "):
                given = octets(lines[at + 1][3:]) if lines[at + 1].startswith("I> ") else b""
                at += bool(given)
                self.sendmail(line[3:], given)
            elif line == "S: ...":  # whatever comes before what stands next
                at += 1
                want = lines[at][3:].replace("$F", self.folder)
                pattern = ".*".join(re.escape(p) for p in want.split("{*}")) + ("$" if want == "." else "")
                got = b""
                while not re.match(pattern, got.decode(errors="replace").rstrip("\r\n")):
                    got = self.w.reply()
                    assert got != b"EOF", f"{lines[at]}: EOF"
            else:
                self.step(line)
            at += 1

    def still_here(self):
        """The session goes on, if it did not end."""
        if self.ended or not self.wires:
            return
        service = self.w.service
        if service in SMTP:
            assert self.w.say(b"NOOP still here").startswith(b"250 2.0.0")
        elif service in ("imap", "imaps"):
            self.w.send(b"still NOOP\r\n")
            assert self.w.until(b"still ").startswith(b"still OK")
        else:
            assert self.w.say(b"NOOP").startswith(b"+OK")


def witness(player, service):
    """Another client, of this machine, is served as ever."""
    w = Wire(player, service)
    try:
        if service in SMTP:
            assert w.say(b"QUIT").startswith(b"221 2.0.0")
        elif service in ("imap", "imaps"):
            assert w.say(b"w LOGOUT").startswith(b"* BYE")
        else:
            assert w.say(b"QUIT").startswith(b"+OK")
    finally:
        w.close()


def play_cell(player, table, state, command, want):
    """One cell: the first line that answers the command."""
    once, each = table.states[state]
    want, last, _ = want.partition(" !")
    if not player.wires:
        player.ended = False
        player.open(table.service)
        player.play(once or [])
    player.play(each)
    w = player.w
    tag = b"t " if table.service in ("imap", "imaps") else b""
    w.send(tag + octets(command.replace("$F", player.folder)) + b"\r\n")
    got = w.until(tag, b"+ ", b"* BYE") if tag else w.reply()
    got = got[2:] if tag and got.startswith(tag) else got
    player.check("S: " + want, got)
    if once is None or last or want == "EOF":
        player.close()
