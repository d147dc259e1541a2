"""Clients that send without a pause while the test does something to the instance.

    with load(i, 4, message) as clients:
        ...
    acknowledged(clients)

message(name, n) gives (sender, recipients, text, marks) of the n-th message of a client; its marks are acknowledged when
every recipient was.
"""
import contextlib
import hashlib
import smtplib
import threading
import time

from instance import SLOW


def digest(body):
    return hashlib.sha256(body.replace(b"\r\n", b"\n").strip()).hexdigest()


def body_of(content):
    return content.replace(b"\r\n", b"\n").partition(b"\n\n")[2]


class Client(threading.Thread):
    def __init__(self, i, name, message):
        super().__init__(daemon=True)
        self.i, self.client, self.message, self.stopping, self.acknowledged = i, name, message, False, set()

    def run(self):
        n, s = 0, None
        while not self.stopping:
            n += 1
            sender, recipients, text, marks = self.message(self.client, n)
            try:
                s = s or smtplib.SMTP("127.0.0.1", self.i.port["smtp"], timeout=30 * SLOW)
                if not s.sendmail(sender, recipients, text):
                    self.acknowledged |= set(marks)
            except (smtplib.SMTPException, OSError):
                if s:
                    s.close()
                s = None
                time.sleep(0.02)


@contextlib.contextmanager
def load(i, count, message):
    clients = [Client(i, f"c{k}", message) for k in range(count)]
    for c in clients:
        c.start()
    try:
        yield clients
    finally:
        for c in clients:
            c.stopping = True
        for c in clients:
            c.join(60 * SLOW)


def acknowledged(clients):
    return set().union(*(c.acknowledged for c in clients))
