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


def hand_in(s, sender, recipients, text):
    """The reply to the content; None when anything was refused."""
    s.ehlo_or_helo_if_needed()
    for code, said in (s.mail(sender), *map(s.rcpt, recipients)):
        if code // 100 != 2:
            s.rset()
            return None
    code, said = s.data(text)
    return said.decode() if code == 250 else None


class Client(threading.Thread):
    def __init__(self, i, name, message):
        super().__init__(daemon=True)
        self.i, self.client, self.message, self.stopping, self.replies = i, name, message, False, {}
        self.sent = set()  # marks, whatever came of them

    def run(self):
        n, s = 0, None
        while not self.stopping:
            n += 1
            sender, recipients, text, marks = self.message(self.client, n)
            self.sent |= marks
            try:
                s = s or smtplib.SMTP("127.0.0.1", self.i.port["smtp"], timeout=30 * SLOW)
                said = hand_in(s, sender, recipients, text)
                if said:
                    self.replies.update(dict.fromkeys(marks, said))
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


def replies(clients):
    """What was said of each mark that was acknowledged."""
    return {mark: said for c in clients for mark, said in dict(c.replies).items()}  # a copy: they may go on


def offered(clients):
    return set().union(*(set(c.sent) for c in clients))


def acknowledged(clients):
    return set(replies(clients))
