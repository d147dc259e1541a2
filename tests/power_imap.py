"""The load of tests/power.py over IMAP: one client, what it was told, and what must be true of it after a cut.

A client does one thing at a time. Before it asks, it notes what may come of it (doubt); the tagged OK, booked in the ledger,
makes it certain. After a cut: UIDVALIDITY is the same, UIDNEXT does not go back, each UID that was ever told
names the same message, what was stored, copied or moved is there with its UID and flags, and what was expunged stays away,
but for a delivery that the queue repeats, which is a new message (counted).
"""
import imaplib
import re
import socket

from instance import SLOW

ERRORS = (imaplib.IMAP4.error,)
FOLDERS = ("INBOX", "A", "B")
FLAGS = ("\\Seen", "\\Flagged", "\\Answered", *(f"k{n}" for n in range(30)))  # more than letters of a file name


class Doubt:
    """What the command under way may do: uids of folder may get flags, be gone, be in to; token may be in to."""

    def __init__(self, folder=None, uids=(), flags=None, gone=False, to=None, tokens=()):
        self.folder, self.uids, self.flags, self.gone, self.to, self.tokens = folder, tuple(uids), flags, gone, to, tuple(tokens)


class Box:
    def __init__(self, machine, user, password):
        self.machine, self.ledger, self.random = machine, machine.ledger, machine.random
        self.user, self.password, self.place = user, password, user.partition("@")[0]
        self.known = {f: {} for f in FOLDERS}  # {uid: (token, flags)}
        self.past = {f: {} for f in FOLDERS}  # {uid: token} of all that ever were
        self.validity, self.next = {}, {}
        self.removed, self.own = [], set()  # tokens: expunged; appended by this client
        self.before = {}  # by token under way: how many there are but for one
        self.doubt, self.session = Doubt(), None

    def close(self):
        if self.session:
            self.session.shutdown()
        self.session = None

    def open(self):
        if not self.session:
            i = self.machine.i
            self.session = imaplib.IMAP4_SSL("localhost", i.port["imaps"], ssl_context=i.tls(), timeout=30 * SLOW)
            self.session.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.ok(self.session.login(self.user, self.password))
            self.selected = None
        return self.session

    @staticmethod
    def ok(answer):
        assert answer[0] == "OK", answer
        return answer[1]

    def select(self, folder):
        if self.selected != folder:
            self.ok(self.open().select(folder))
            self.selected = folder

    # --- looking ---

    def read(self, folder):
        """{uid: (token or None, flags)} and the numbers of SELECT."""
        m = self.open()
        self.ok(m.select(folder))
        self.selected = folder
        numbers = [int(m.response(name)[1][-1]) for name in ("UIDVALIDITY", "UIDNEXT")]
        found = {}
        data = self.ok(m.uid("FETCH", "1:*", "(UID FLAGS BODY.PEEK[])"))
        for n, part in enumerate(data):
            if not isinstance(part, tuple):
                continue
            about = part[0] + (data[n + 1] if n + 1 < len(data) and isinstance(data[n + 1], bytes) else b"")
            flags = frozenset(re.search(rb"FLAGS \((.*?)\)", about)[1].decode().split()) - {"\\Recent"}
            token = re.search(rb"^Subject: (T\w+)", part[1], re.M)
            found[int(re.search(rb"UID (\d+)", about)[1])] = (token and token[1].decode(), flags)
        return found, numbers

    def verify(self):
        """After a cut: compares, and takes over what is there."""
        found = {}
        for folder in FOLDERS:
            try:
                found[folder], (validity, uidnext) = self.read(folder)
            except AssertionError as e:
                self.problem(f"{folder} cannot be selected: {e}")
                found[folder], validity, uidnext = {}, 0, 0
            if self.validity.setdefault(folder, validity) != validity:
                self.problem(f"UIDVALIDITY of {folder} was {self.validity[folder]}, is {validity}")
            if uidnext < self.next.get(folder, 0):
                self.problem(f"UIDNEXT of {folder} went back from {self.next[folder]} to {uidnext}")
            self.next[folder] = uidnext
            self.compare(folder, found[folder])
        for token in self.doubt.tokens if self.doubt.gone and self.doubt.to else ():
            n = sum(t == token for f in (self.doubt.folder, self.doubt.to) for t, _ in found[f].values())
            if n > 1 + self.before[token] and token not in self.own:
                self.machine.total["twice: delivered again behind a client"] += 1
            elif n != 1 + self.before[token]:
                self.problem(f"{token}, under way from {self.doubt.folder} to {self.doubt.to}, is there {n} times")
        if self.doubt.gone and not self.doubt.to:
            self.removed += [t for u, t in zip(self.doubt.uids, self.doubt.tokens) if u not in found[self.doubt.folder]]
        self.doubt = Doubt()
        for folder in FOLDERS:
            self.adopt(folder, found[folder])
        self.machine.total["mailbox states compared"] += 1
        self.close()

    def problem(self, text):
        self.machine.problem(f"{self.user}: {text}")

    def compare(self, folder, found):
        doubt = self.doubt
        for uid, (token, flags) in self.known[folder].items():
            unsure = doubt.folder == folder and uid in doubt.uids
            if uid not in found:
                if not (unsure and doubt.gone):
                    self.problem(f"message {uid} ({token}) of {folder} is gone")
                continue
            if found[uid][0] != token:
                self.problem(f"UID {uid} of {folder} was {token}, is {found[uid][0]}")
            if found[uid][1] != flags and not (unsure and found[uid][1] == doubt.flags):
                self.problem(f"flags of {uid} in {folder} were {sorted(flags)}, are {sorted(found[uid][1])}, "
                             f"under way: {unsure and doubt.flags}")
        for uid in set(found) - set(self.known[folder]):
            token = found[uid][0]
            if uid in self.past[folder]:
                self.problem(f"UID {uid} of {folder}, expunged, is there again, as {token}")
            elif doubt.to == folder and token in doubt.tokens:
                continue
            elif token in self.own:
                self.problem(f"{token} is in {folder} as {uid}, and was not put there")
            elif token in self.removed or token in self.past[folder].values():
                self.machine.total["twice: delivered again behind a client"] += 1

    def adopt(self, folder, found):
        self.known[folder] = dict(found)
        self.past[folder].update({uid: token for uid, (token, _) in found.items()})

    # --- working ---

    def turn(self):
        self.open()
        if self.random.random() < 0.15:
            self.arrivals()
        self.selected = self.selected or self.read("INBOX") and "INBOX"
        act = self.random.choice((self.append, self.append, self.store, self.store, self.expunge, self.copy, self.move))
        act()

    def make(self):
        for folder in FOLDERS[1:]:
            self.ok(self.open().create(folder))
        self.validity = {folder: self.read(folder)[1][0] for folder in FOLDERS}

    def arrivals(self):
        """Learns what was delivered meanwhile: from now on its UIDs are told."""
        found, numbers = self.read("INBOX")

        def learn():
            self.adopt("INBOX", found)
            self.next["INBOX"] = numbers[1]

        self.ledger.done(learn)

    def some(self, folder):
        """Up to three messages of a folder that are known, ascending."""
        uids = sorted(self.known[folder])
        uids = sorted(self.random.sample(uids, min(len(uids), self.random.randint(1, 3))))
        return uids, [self.known[folder][u][0] for u in uids]

    def put(self, folder, uid, token, flags):
        self.known[folder][uid] = (token, flags)
        self.past[folder][uid] = token

    def append(self):
        folder = self.random.choice(FOLDERS)
        token, content = self.ledger.message(self.random.choice((300, 300, 60000)))
        flags = frozenset(self.random.sample(FLAGS, 2))
        self.own.add(token)
        self.doubt = Doubt(to=folder, tokens=[token])
        data = self.ok(self.open().append(folder, f"({' '.join(flags)})", None, content))
        uid = int(re.search(rb"APPENDUID \d+ (\d+)", data[0])[1])
        self.finish(lambda: self.put(folder, uid, token, flags))

    def finish(self, what):
        self.ledger.done(what)
        self.doubt = Doubt()

    def store(self):
        folder = self.random.choice(FOLDERS)
        uids, _ = self.some(folder)
        if not uids:
            return
        flags = frozenset(self.random.sample(FLAGS, self.random.randint(0, 3)))
        self.select(folder)
        self.doubt = Doubt(folder, uids, flags=flags)
        self.ok(self.session.uid("STORE", ",".join(map(str, uids)), "FLAGS.SILENT", f"({' '.join(flags)})"))
        self.finish(lambda: [self.known[folder].update({u: (self.known[folder][u][0], flags)}) for u in uids])

    def expunge(self):
        folder = max(FOLDERS, key=lambda f: len(self.known[f]))
        uids, tokens = self.some(folder)
        if not uids:
            return
        self.select(folder)
        # \Deleted first: in doubt until the expunge has removed them
        flags = {u: self.known[folder][u][1] | {"\\Deleted"} for u in uids}
        self.doubt = Doubt(folder, uids, flags=None)
        for u in uids:
            self.doubt = Doubt(folder, [u], flags=flags[u])
            self.ok(self.session.uid("STORE", str(u), "+FLAGS.SILENT", "(\\Deleted)"))
            self.ledger.done(lambda uid=u: self.known[folder].update({uid: (self.known[folder][uid][0], flags[uid])}))
        self.doubt = Doubt(folder, uids, gone=True, tokens=tokens)
        self.ok(self.session.uid("EXPUNGE", ",".join(map(str, uids))))
        self.finish(lambda: self.forget(folder, uids))

    def forget(self, folder, uids):
        for u in uids:
            self.removed.append(self.known[folder].pop(u)[0])

    def transfer(self, verb, gone):
        folder = self.random.choice(FOLDERS)
        to = self.random.choice([f for f in FOLDERS if f != folder])
        uids, tokens = self.some(folder)
        if not uids:
            return
        self.select(folder)
        self.before = {t: sum(x == t for f in (folder, to) for x, _ in self.known[f].values()) - 1 for t in tokens}
        self.doubt = Doubt(folder, uids, gone=gone, to=to, tokens=tokens)
        answer = self.ok(self.session.uid(verb, ",".join(map(str, uids)), to))
        text = b" ".join(x for x in (answer or []) if isinstance(x, bytes)) + b" ".join(self.session.response("COPYUID")[1][:1] or [])
        uids_there = re.search(rb"(\d+) (\S+) ([\d:,]+)", text)

        def book():
            for u, new in zip(uids, expand(uids_there[3].decode())):
                token, flags = self.known[folder].pop(u) if gone else self.known[folder][u]
                self.put(to, new, token, flags)

        self.finish(book)

    def copy(self):
        self.transfer("COPY", False)

    def move(self):
        self.transfer("MOVE", True)


def expand(uids):
    out = []
    for part in uids.split(","):
        first, _, last = part.partition(":")
        out += range(int(first), int(last or first) + 1)
    return out
