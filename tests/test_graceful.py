"""Reload, restart, upgrade in place and kill of master under load with live sessions of every kind.

Graceful ones refuse no connection and cut no transaction, and every answer of a live session comes. Whatever happens, what
was acknowledged is delivered: sets by SHA-256, and nothing twice where nobody was killed.
"""
import collections
import imaplib
import os
import poplib
import re
import smtplib
import threading
import time

import pytest

from instance import SLOW
from test_local import wait
from test_queue import body_of, digest, wait_empty, with_sink  # noqa: F401

U1, U2 = "u1@example.test", "u2@example.test"
BROKEN = (smtplib.SMTPException, imaplib.IMAP4.error, poplib.error_proto, OSError, AssertionError, TypeError, IndexError)


class Worker(threading.Thread):
    """Does one thing again and again; what fails is kept with the step."""

    def __init__(self, i):
        super().__init__(daemon=True)
        self.i, self.over, self.done, self.failed, self.acked = i, False, 0, [], {}

    def run(self):
        while not self.over:
            try:
                self.turn()
                self.done += 1
            except BROKEN as e:
                self.failed.append(f"{type(self).__name__}: {type(e).__name__} {e}")
                self.reset()
                time.sleep(0.05)

    def reset(self):
        pass

    def message(self, size):
        body = os.urandom(16).hex() + "\r\n" + ("x" * 62 + "\r\n") * (size // 64)
        return digest(body.encode()), f"Subject: m\r\n\r\n{body}".encode()


def begins(s, sender):
    """MAIL. False: told to come back (421), which an old receiver may say before a transaction, and never within one."""
    try:
        s.ehlo_or_helo_if_needed()
        code, text = s.mail(sender)
    except (smtplib.SMTPServerDisconnected, smtplib.SMTPHeloError):
        return False
    assert code in (250, 421), (code, text)
    return code == 250


class OneEach(Worker):
    """A connection for each message."""

    to = ([U1], ["a@out.test"], [U1, U2])

    def turn(self):
        key, content = self.message(40000 if self.done % 10 == 9 else 200)
        to = self.to[self.done % len(self.to)]
        s = smtplib.SMTP("127.0.0.1", self.i.port["smtp"], timeout=60 * SLOW)  # raises if it is not greeted
        try:
            if begins(s, "s@far.test"):
                for code, text in (*(s.rcpt(t) for t in to), s.data(content)):
                    assert code == 250, (code, text)
                self.acked[key] = to
        finally:
            s.close()


class Lasting(Worker):
    """Many messages on one connection, submitted under a login."""

    session, early = None, 0

    def reset(self):
        if self.session:
            self.session.close()
        self.session = None

    def turn(self):
        if not self.session:
            session = smtplib.SMTP("localhost", self.i.port["submission"], timeout=60 * SLOW)
            try:
                session.starttls(context=self.i.tls())
                session.login(U1, "p")
            except (smtplib.SMTPServerDisconnected, smtplib.SMTPResponseException, smtplib.SMTPNotSupportedError, OSError):
                session.close()  # told to come back before it was logged in
                self.early += 1
                return
            self.session = session
        key, content = self.message(200)
        if not begins(self.session, U1):
            self.reset()
            return
        for code, text in (self.session.rcpt(U2), self.session.data(content)):
            assert code == 250, (code, text)
        self.acked[key] = [U2]


class Imap(Worker):
    """One session that stays: APPEND, STORE, and a look at what is there."""

    box = None

    def reset(self):
        if self.box:
            self.box.shutdown()
        self.box = None

    def turn(self):
        if not self.box:
            self.box = imaplib.IMAP4_SSL("localhost", self.i.port["imaps"], ssl_context=self.i.tls(), timeout=60 * SLOW)
            self.box.login(U1, "p")
            assert self.box.select()[0] == "OK"
        key, content = self.message(500)
        kind, text = self.box.append("INBOX", None, None, content)
        assert kind == "OK", text
        self.acked[key] = [U1]
        uid = re.search(rb"APPENDUID \d+ (\d+)", text[0])[1].decode()
        assert self.box.uid("STORE", uid, "+FLAGS.SILENT", "(\\Flagged)")[0] == "OK"
        assert b"\\Flagged" in self.box.uid("FETCH", uid, "(FLAGS)")[1][0]
        time.sleep(0.02)


class Pop(Worker):
    """A session, whole."""

    def turn(self):
        box = poplib.POP3_SSL("localhost", self.i.port["pop3s"], context=self.i.tls(), timeout=60 * SLOW)
        box.user(U2)
        box.pass_("p")
        count = box.stat()[0]
        assert len(box.list()[1]) == count
        box.quit()
        time.sleep(0.05)


class Load:
    """Two of each that sends, one of each that reads, against an instance."""

    def __init__(self, i, sink):
        self.i, self.sink = i, sink
        self.workers = [OneEach(i), OneEach(i), Lasting(i), Imap(i), Pop(i)]
        for w in self.workers:
            w.start()
        self.go_on(3)

    def go_on(self, turns):
        """Everybody has come so much further."""
        want = {w: w.done + turns for w in self.workers}
        wait(lambda: all(w.done >= n for w, n in want.items()), 60, "each worker's next turns")

    def end(self):
        """Ends the load; (failures, lost, more often than asked)."""
        for w in self.workers:
            w.over = True
        for w in self.workers:
            w.join(60 * SLOW)
            assert not w.is_alive()
            w.reset()
        self.i.tool("queue", "flush", check=False)
        wait_empty(self.i, 60)
        found = {u: collections.Counter(digest(body_of(m)) for m in self.i.messages(u)) for u in (U1, U2)}
        found["a@out.test"] = collections.Counter(digest(body_of(m.content)) for m in self.sink.messages)
        acked = [(key, to) for w in self.workers for key, all_to in w.acked.items() for to in all_to]
        assert len(acked) > 30
        lost = [(key, to) for key, to in acked if not found[to][key]]
        twice = [(key, to) for to, keys in found.items() for key, n in keys.items() if n > 1]
        return sum((w.failed for w in self.workers), []), lost, twice


@pytest.fixture
def loaded(with_sink):  # noqa: F811
    """loaded(direct=...) gives an instance under load, and the load."""
    def make(**options):
        i, sink = with_sink(all_running=True, users={U1: "p", U2: "p"}, main={"minimal_backoff_time": "1s", "imap_session_idle_time": "1s"}, **options)
        return i, Load(i, sink)

    return make


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "queued"])
@pytest.mark.parametrize("act", ["reload", "upgrade"])
def test_graceful(loaded, act, direct):
    i, load = loaded(direct=direct)
    master = i.process.pid
    imapd = load.workers[3].box
    for n in range(3):
        if act == "reload":
            i.set(smtpd_banner=f"$myhostname ESMTP {n}")
        i.tool(act)
        load.go_on(3)
    i.wait_ready(60)
    assert load.workers[3].box is imapd, "the session lived on"
    failed, lost, twice = load.end()
    assert not failed and not lost and not twice, (failed[:5], len(lost), len(twice))
    assert i.process.poll() is None and i.process.pid == master


def test_restart(loaded):
    """Stop and start: connections are refused meanwhile, but what had begun ends, and no answer given is untrue."""
    i, load = loaded(direct=False, allow_deaths=True)
    for _ in range(2):
        i.stop()
        i.start()
        load.go_on(3)
    _, lost, twice = load.end()
    assert not lost and not twice, (len(lost), len(twice))


def test_kill_of_master(loaded):
    """kill -9 of master: the others end what they have and go; a new master takes over. Nothing is lost."""
    i, load = loaded(allow_deaths=True)
    for _ in range(2):
        i.process.kill()
        i.process.wait()
        wait(lambda: not i.processes(), 60, "the end of the orphans")
        i.stderr.close()
        i.start()
        load.go_on(3)
    _, lost, _ = load.end()
    assert not lost, len(lost)
