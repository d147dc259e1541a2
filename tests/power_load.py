"""The load of tests/power.py over SMTP: what was sent, what was acknowledged before the cut, and who sends."""
import hashlib
import os
import re
import smtplib
import threading
import time

SIZES = (200, 200, 200, 3000, 40000)  # the last is beyond small_message_limit
# Names of Machine.address. More than five recipients are queued first.
RECIPIENTS = (("u1",), ("u2",), ("u1", "u2"), ("box1",), ("box2", "u1"), ("s1",), ("s2",), ("a@out.test",), ("slow@out.test",),
              ("defer@out.test",), ("bad", "u2"), ("u1", "u2", "box1", "s1", "s2", "a@out.test", "defer@out.test"))


class Over(Exception):
    """The power is off: what came now does not count."""


class Ledger:
    """What the clients know. Answers are booked, and the power is cut, under one lock."""

    def __init__(self, disk):
        self.disk, self.lock, self.over, self.event = disk, threading.Lock(), True, threading.Event()
        self.sent, self.acked, self.count, self.left = {}, {}, 0, 0

    def begin(self, answers):
        """The cut comes with so many answers from now, in the thread that books the last of them."""
        self.left, self.over = answers, False
        self.event.clear()

    def done(self, what):
        with self.lock:
            if self.over:
                raise Over
            what()
            self.count += 1
            self.left -= 1
            if self.left == 0:
                self.cut()

    def cut(self):
        if not self.over:
            self.over = True
            self.disk.cut()
            self.event.set()

    def message(self, size):
        """A token, and a message that has it as its subject and nothing else like it."""
        token = "T" + os.urandom(8).hex()
        line = os.urandom(30).hex()
        body = "".join(f"{n} {line}\r\n" for n in range(size // 64 + 1))
        self.sent[token] = hashlib.sha256(body.replace("\r\n", "\n").strip().encode()).hexdigest()
        return token, f"From: u3@example.test\r\nSubject: {token}\r\n\r\n{body}".encode()


class SmtpClient:
    def __init__(self, machine, name):
        self.machine, self.ledger, self.name, self.session = machine, machine.ledger, name, None

    def close(self):
        if self.session:
            self.session.close()
        self.session = None

    def turn(self):
        m, random = self.machine, self.machine.random
        if not self.session:
            self.session = smtplib.SMTP("127.0.0.1", m.i.port["smtp"], timeout=30)
            self.session.ehlo("client.test")
        names = random.choice(RECIPIENTS)
        token, content = self.ledger.message(random.choice(SIZES))
        self.session.mail("u3@example.test")
        for name in names:
            code, text = self.session.rcpt(m.address[name])
            assert code == 250, text
        code, text = self.session.data(content)
        assert code == 250, text
        self.ledger.done(lambda: self.ledger.acked.update({token: names}))
        if names == ("defer@out.test",):
            m.waiting.append((re.search(rb"as (\w+)", text)[1].decode(), token))


class Admin:
    """An administrator who holds and deletes messages that wait: what was answered is true after the cut."""

    def __init__(self, machine):
        self.machine = machine

    def close(self):
        pass

    def turn(self):
        m = self.machine
        if not m.waiting or m.random.random() < 0.5:
            time.sleep(0.02)
            return
        name, token = m.waiting.pop(m.random.randrange(len(m.waiting)))
        verb = m.random.choice(("hold", "delete"))
        with m.ledger.lock:
            if not m.ledger.over and verb == "delete":
                m.ledger.acked.pop(token, None)  # from here on it may be gone
        if m.i.tool("queue", verb, name, check=False).stdout == "1 message\n":
            m.ledger.done(lambda: m.held.add(name) if verb == "hold" else m.deleted.add(token))
