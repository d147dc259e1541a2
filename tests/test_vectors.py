"""Every message of the vectors the whole way: submitted over TLS with a password, delivered, read over IMAP and POP3."""
import imaplib
import poplib
import re
import smtplib
import socket

import pytest

from instance import ROOT, SLOW

VECTORS = ROOT.parent / "shared/vectors/messages"
poplib._MAXLINE = 1 << 24  # some of the messages have longer lines than poplib likes
USER, PASSWORD = "u1@example.test", "pass1"


def corpus():
    """(name, text as a sender makes it: every CR, LF or CRLF is a line end, the last line has one, and the line
    that parts messages in an mbox is no part of one)."""
    for path in sorted(VECTORS.rglob("*")):
        if path.suffix in (".eml", ".msg") or (path.suffix == ".txt" and path.parent.name in ("messages", "python-test-email")):
            text = re.sub(rb"\r\n|\r|\n", b"\r\n", path.read_bytes())
            text = re.sub(rb"\AFrom .*\r\n", b"", text)
            if text and b"\0" not in text:
                yield str(path.relative_to(VECTORS)), text if text.endswith(b"\r\n") else text + b"\r\n"


def submit(i, texts):
    with smtplib.SMTP_SSL("localhost", i.port["submissions"], "client.example", timeout=30 * SLOW, context=i.tls()) as s:
        s.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.login(USER, PASSWORD)
        for name, text in texts:
            # smtplib would rewrite line ends; the mark finds the message again.
            assert s.mail(USER, ["BODY=8BITMIME"])[0] == 250, name
            assert s.rcpt(USER)[0] == 250, name
            assert s.docmd("DATA")[0] == 354, name
            s.send(re.sub(rb"(?m)^\.", b"..", text) + b".\r\n")
            reply = s.getreply()
            assert reply[0] == 250, (name, reply)


def check(name, text, got):
    """Only whole header fields stand before the text, and those that submission adds within its header."""
    if got.endswith(text):
        before = got[: len(got) - len(text)]
    else:
        head, sep, body = text.partition(b"\r\n\r\n")
        assert sep and got.endswith(sep + body), name
        rest = got[: len(got) - len(sep + body)]
        at = rest.find(head)
        assert at >= 0, (name, rest[:600], head[:600])
        before = rest[:at] + rest[at + len(head):].lstrip(b"\r\n") + b"\r\n"
    for line in before.split(b"\r\n"):
        assert not line or line[:1] in b" \t" or re.match(rb"[A-Za-z-]+:", line), (name, line)


@pytest.mark.skipif(not VECTORS.is_dir(), reason="the vectors are not there")
def test_every_vector_is_submitted_and_read_back(make_instance):
    i = make_instance(main={"smtpd_client_message_rate_limit": "0", "header_size_limit": "10M", "message_drop_headers": ""})
    texts = list(corpus())
    assert len(texts) > 150
    submit(i, texts)
    i.wait_messages(USER, len(texts), 60)
    m = imaplib.IMAP4_SSL("localhost", i.port["imaps"], ssl_context=i.tls(), timeout=30 * SLOW)
    m.login(USER, PASSWORD)
    m.select()
    data = m.fetch("1:*", "(BODY.PEEK[])")[1]
    over_imap = [part[1] for part in data if isinstance(part, tuple)]
    m.logout()
    p = poplib.POP3_SSL("localhost", i.port["pop3s"], timeout=30 * SLOW, context=i.tls())
    p.user(USER)
    p.pass_(PASSWORD)
    count = p.stat()[0]
    over_pop = [b"\r\n".join(p.retr(n)[1]) + b"\r\n" for n in range(1, count + 1)]
    p.quit()
    assert len(over_imap) == len(over_pop) == len(texts)
    assert sorted(over_imap) == sorted(over_pop)
    # Deliveries overlap, so the order may differ: each text is looked for by its body's end, the longest first.
    left = list(over_imap)
    for name, text in sorted(texts, key=lambda t: -len(t[1])):
        body = text.partition(b"\r\n\r\n")[2] or text
        fits = [got for got in left if got.endswith(body)]
        assert fits, name
        best = min(fits, key=lambda got: (text.partition(b"\r\n\r\n")[0] not in got, abs(len(got) - len(text))))
        check(name, text, best)
        left.remove(best)
