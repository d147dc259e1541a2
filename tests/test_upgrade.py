"""Reload, upgrade in place and crash of master under live sessions: nothing that was begun is cut."""
import imaplib
import poplib
import smtplib
import socket
import threading
import time

from instance import SLOW

BODY = b"From: a@sender.example\r\nSubject: one\r\n\r\nbody\r\n"


class Knocker(threading.Thread):
    """Connects again and again; counts connections that were refused or closed without a greeting."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.stop_now, self.good, self.bad = port, False, 0, []

    def run(self):
        while not self.stop_now:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 10 * SLOW) as s:
                    s.settimeout(10 * SLOW)
                    line = s.recv(200)
                    if line.startswith(b"220"):
                        self.good += 1
                        s.sendall(b"QUIT\r\n")
                        s.recv(100)
                    else:
                        self.bad.append(line)
            except OSError as e:
                self.bad.append(e)
            time.sleep(0.01)


def imap(i):
    m = imaplib.IMAP4("localhost", i.port["imap"])
    m.starttls(i.tls())
    m.login("u1@example.test", "pass1")
    assert m.select()[0] == "OK"
    return m


def begin_transaction(i):
    s = smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=20 * SLOW)
    s.ehlo()
    assert s.docmd("MAIL FROM:<a@sender.example>")[0] == 250
    assert s.docmd("RCPT TO:<u1@example.test>")[0] == 250
    assert s.docmd("DATA")[0] == 354
    s.send(BODY[:20])
    return s


def finish_transaction(s):
    s.send(BODY[20:] + b".\r\n")
    code, text = s.getreply()
    assert code == 250, text


def around(i, act):
    """A transaction under way, an IMAP session and new connections, before, while and after act()."""
    box, smtp, knocker = imap(i), begin_transaction(i), Knocker(i.port["smtp"])
    pid = i.process.pid
    knocker.start()
    time.sleep(0.2)
    act()
    time.sleep(0.3)
    finish_transaction(smtp)
    i.wait_messages("u1@example.test", 1)
    assert box.noop()[0] == "OK"
    assert box.select()[1] == [b"1"]
    assert b"body" in box.fetch("1", "(BODY[])")[1][0][1]
    i.wait_ready()
    knocker.stop_now = True
    knocker.join()
    assert knocker.good > 3 and not knocker.bad, (knocker.good, knocker.bad[:5])
    assert i.process.poll() is None and i.process.pid == pid
    # new sessions of every kind work afterwards
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=20) as s:
        s.sendmail("a@sender.example", ["u1@example.test"], BODY)
    i.wait_messages("u1@example.test", 2)
    assert imap(i).select()[1] == [b"2"]
    pop = poplib.POP3("localhost", i.port["pop3"])
    pop.stls(i.tls())
    pop.user("u1@example.test")
    pop.pass_("pass1")
    assert pop.stat()[0] == 2
    pop.quit()
    assert box.logout()[0] == "BYE"


def test_upgrade_in_place(make_instance):
    i = make_instance()
    around(i, lambda: i.tool("upgrade"))


def test_reload_under_sessions(make_instance):
    i = make_instance()
    around(i, i.reload)


def test_new_settings_after_reload(make_instance):
    i = make_instance()
    i.set(message_size_limit=12345)
    i.reload()
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=20) as s:
        s.ehlo()
        assert s.esmtp_features["size"] == "12345"


def test_master_killed(make_instance):
    """kill -9 of master: the daemons see it, end what they have, and a new master starts at once."""
    i = make_instance(allow_deaths=True)
    i.process.kill()
    i.process.wait()
    end = time.monotonic() + 10 * SLOW
    while i.processes() and time.monotonic() < end:
        time.sleep(0.05)
    assert not i.processes()
    i.stderr.close()
    i.start()
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=20) as s:
        s.sendmail("a@sender.example", ["u1@example.test"], BODY)
    i.wait_messages("u1@example.test", 1)
