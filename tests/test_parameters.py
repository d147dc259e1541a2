"""Parameters that no other test turns: each does what main.cf(5) says, at its limit and one past it."""
import imaplib
import re
import smtplib
import socket
import subprocess
import time

import pytest

from instance import SLOW
from sink import Sink

BODY = b"From: a@sender.example\r\nSubject: %s\r\n\r\nbody\r\n"
STRANGERS = {"mynetworks": "192.0.2.0/24"}


def first_line(i, name):
    with socket.create_connection(("127.0.0.1", i.port[name]), 10 * SLOW) as s:
        s.settimeout(10 * SLOW)
        return s.makefile("rb").readline()


def submission(i, user="u1@example.test", password="pass1"):
    s = smtplib.SMTP("localhost", i.port["submission"], timeout=20 * SLOW)
    s.starttls(context=i.tls())
    s.login(user, password)
    return s


def test_login_greeting(make_instance):
    i = make_instance(main={"login_greeting": "$mail_name of $myhostname is here."})
    assert first_line(i, "imap").endswith(b"] Bulkhead of mx.example.test is here.\r\n")
    assert first_line(i, "pop3") == b"+OK Bulkhead of mx.example.test is here.\r\n"


# --- rates ---


def test_connection_rate(make_instance):
    i = make_instance(main={**STRANGERS, "smtpd_client_connection_rate_limit": "3", "anvil_rate_time_unit": "4s"})
    time.sleep(4.2)  # wait_ready has knocked
    for name, refusal in (("smtp", b"421 4.7.0 "), ("imap", b"* BYE ")):  # each service counts by itself
        began = time.monotonic()
        for _ in range(3):
            assert not first_line(i, name).startswith(refusal)
        assert first_line(i, name).startswith(refusal)
        while first_line(i, name).startswith(refusal):
            assert time.monotonic() - began < 15 * SLOW
            time.sleep(0.3)
        assert time.monotonic() - began > 2
    assert i.wait_log("connection-refused.*smtpd_client_connection_rate_limit")


def test_connection_rate_spares_exceptions(make_instance):
    i = make_instance(main={"smtpd_client_connection_rate_limit": "2"})
    for _ in range(6):
        assert first_line(i, "smtp").startswith(b"220 ")


def test_login_rate(make_instance):
    main = {**STRANGERS, "smtpd_client_auth_rate_limit": "2", "anvil_rate_time_unit": "5s", "auth_failure_delay": "0"}
    i = make_instance(main=main)
    began = time.monotonic()
    submission(i).quit()
    m = imaplib.IMAP4_SSL("localhost", i.port["imaps"], ssl_context=i.tls())
    m.login("u1@example.test", "pass1")
    m.logout()
    with pytest.raises(smtplib.SMTPAuthenticationError) as e:  # both protocols count together
        submission(i)
    assert e.value.smtp_code == 454
    assert i.wait_log("auth-limited.*smtpd_client_auth_rate_limit")
    while time.monotonic() - began < 20 * SLOW:
        try:
            submission(i).quit()
            break
        except smtplib.SMTPAuthenticationError:
            time.sleep(0.5)
    else:
        raise AssertionError(i.tail())


# --- logins and senders ---


def test_local_domain_of_logins(make_instance):
    i = make_instance(main={"smtpd_sasl_local_domain": "example.test"}, users={"u1@example.test": "pass1", "u2": "pass2"})
    with submission(i, "u1") as s:
        s.sendmail("u1@example.test", ["u1@example.test"], BODY % b"bare")
    i.wait_messages("u1@example.test", 1)
    submission(i, "u2", "pass2").quit()
    m = imaplib.IMAP4_SSL("localhost", i.port["imaps"], ssl_context=i.tls())
    m.login("U1", "pass1")
    assert m.select()[1] == [b"1"]
    m.logout()
    i.set(smtpd_sasl_local_domain="")
    i.reload()
    with pytest.raises(smtplib.SMTPAuthenticationError):
        submission(i, "u1")


def test_sender_login_maps(make_instance, tmp_path):
    table = tmp_path / "senders"
    table.write_text("team@example.test u2@example.test, u1@example.test\nboss@example.test u2@example.test\n"
                     "@lists.test u1@example.test\nclosed@lists.test u2@example.test\n")
    tmp_path.chmod(0o755)
    i = make_instance(main={"smtpd_sender_login_maps": f"hash:{table}", "recipient_delimiter": "+"},
                      users={"u1@example.test": "pass1", "u2@example.test": "pass2"})

    def may(user, password, sender):
        with submission(i, user, password) as s:
            try:
                s.sendmail(sender, ["u1@example.test"], BODY % b"x")
                return True
            except smtplib.SMTPResponseException as e:
                assert (e.smtp_code, e.smtp_error[:5]) == (553, b"5.7.1")
                return False
            except smtplib.SMTPRecipientsRefused:
                return False

    one, two = ("u1@example.test", "pass1"), ("u2@example.test", "pass2")
    assert may(*one, "u1@example.test")  # its own
    assert may(*one, "team@example.test") and may(*two, "team@example.test")
    assert may(*one, "team+box@example.test")
    assert may(*one, "any@lists.test") and not may(*two, "any@lists.test")
    assert not may(*one, "closed@lists.test") and may(*two, "closed@lists.test")
    assert not may(*one, "boss@example.test") and may(*two, "boss@example.test")
    assert not may(*one, "u2@example.test")
    table.write_text("boss@example.test u1@example.test\n")
    end = time.monotonic() + 10 * SLOW
    while not may(*one, "boss@example.test"):
        assert time.monotonic() < end
        time.sleep(0.2)


# --- content ---


def raw(i, content):
    """The reply to the end of a message whose content is these bytes."""
    with socket.create_connection(("127.0.0.1", i.port["smtp"]), 20 * SLOW) as s:
        f = s.makefile("rwb")
        f.readline()
        for line in (b"HELO c.example", b"MAIL FROM:<a@sender.example>", b"RCPT TO:<u1@example.test>", b"DATA"):
            f.write(line + b"\r\n")
            f.flush()
            assert f.readline()[:1] in b"23"
        f.write(content + b"\r\n.\r\nQUIT\r\n")
        f.flush()
        return f.readline()


def test_bare_newline(make_instance):
    smuggled = (b"Subject: one\r\n\r\nbody\n.\nMAIL FROM:<evil@sender.example>\r\nRCPT TO:<u1@example.test>\r\n"
                b"DATA\r\nSubject: two\r\n\r\nbad\n.\r\nmore")
    i = make_instance()
    assert raw(i, smuggled).startswith(b"550 5.5.2 ")
    i.set(smtpd_forbid_bare_newline="no")
    i.reload()
    assert raw(i, smuggled).startswith(b"250 ")
    assert raw(i, b"Subject: cr\r\n\r\na\rb").startswith(b"550 5.5.2 ")
    time.sleep(0.5)
    (m,) = i.wait_messages("u1@example.test", 1)  # one message, not two
    text = m.replace(b"\r\n", b"\n")
    assert b"\n\nbody\n.\nMAIL FROM:<evil@sender.example>\nRCPT TO:" in text and text.endswith(b"bad\n.\nmore\n")


def nested(depth):
    inner = b"Content-Type: text/plain\r\n\r\ndeep\r\n"
    for n in range(depth):
        inner = (b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n)) + inner + b"\r\n--b%d--\r\n" % n
    return b"Subject: nested\r\n" + inner


def test_mime_nesting_limit(make_instance):
    i = make_instance(main={"mime_nesting_limit": "5"})
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=20 * SLOW) as s:
        for depth in (5, 6):
            s.sendmail("a@sender.example", ["u1@example.test"], nested(depth))
    i.wait_messages("u1@example.test", 2)
    m = imaplib.IMAP4_SSL("localhost", i.port["imaps"], ssl_context=i.tls())
    m.login("u1@example.test", "pass1")
    m.select()
    for n in ("1", "2"):
        assert m.fetch(n, "(BODY)")[1][0].lower().count(b'"mixed"') == 5
    m.logout()


def test_active_limit(make_instance):
    """More messages than may be in memory are all sent once the way is open."""
    i = make_instance(start=False)
    i.set(qmgr_message_active_limit="100", relayhost=f"[127.0.0.1]:{i.port['sink']}", minimal_backoff_time="1s",
          maximal_backoff_time="2s")
    i.start()
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=60 * SLOW) as s:
        end = time.monotonic() + 60 * SLOW
        for n in range(150):
            while True:
                try:
                    s.sendmail("a@sender.example", [f"r{n}@far.example"], BODY % b"%d" % n)
                    break
                except smtplib.SMTPDataError as e:  # those before are not on the disk yet
                    assert e.smtp_code == 452 and time.monotonic() < end, f"message {n}\n{i.tail()}"
                    time.sleep(0.1)
    with Sink(i.port["sink"]) as sink:
        i.tool("queue", "flush")
        end = time.monotonic() + 60 * SLOW
        while len(sink.messages) < 150:
            assert time.monotonic() < end, f"{len(sink.messages)}\n{i.tail()}"
            time.sleep(0.1)
        assert {r for m in sink.messages for r in m.recipients} == {f"r{n}@far.example" for n in range(150)}


def test_upgrade_timeout(make_instance):
    """A client that never ends its message does not keep the old smtpd for ever."""
    i = make_instance(main={"upgrade_timeout": "2s"})
    s = smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=20 * SLOW)
    s.ehlo()
    s.mail("a@sender.example")
    s.rcpt("u1@example.test")
    assert s.docmd("DATA")[0] == 354
    old = set(i.pids("smtpd"))
    began = time.monotonic()
    i.tool("upgrade")
    assert s.sock.recv(1) == b""
    assert 1.5 < time.monotonic() - began < 15 * SLOW
    i.wait_log("upgrade-cut.*upgrade_timeout")
    end = time.monotonic() + 5 * SLOW
    while old & set(i.pids("smtpd")):
        assert time.monotonic() < end
        time.sleep(0.05)
    i.wait_ready()
    assert i.messages("u1@example.test") == []


# --- certificates by server name ---


def make_certificate(folder, name):
    key, cert = folder / f"{name}.key", folder / f"{name}.crt"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                    "-subj", f"/CN={name}", "-keyout", key, "-out", cert], check=True, capture_output=True)
    pem = folder / f"{name}.pem"
    pem.write_text(key.read_text() + cert.read_text())
    pem.chmod(0o600)
    return pem


def presented(i, service, name, starttls=None):
    """The common name in the certificate that a client which asks for name gets."""
    line = ["openssl", "s_client", "-connect", f"127.0.0.1:{i.port[service]}", "-servername", name]
    out = subprocess.run(line + (["-starttls", starttls] if starttls else []), input="", capture_output=True, text=True,
                         timeout=30 * SLOW, check=False).stdout
    return re.search(r"^subject=.*CN ?= ?(\S+)", out, re.M)[1]


def test_sni_maps(make_instance, tmp_path):
    tmp_path.chmod(0o755)
    one, two, many = (make_certificate(tmp_path, n) for n in ("one.test", "two.test", "many.test"))
    table = tmp_path / "sni"
    (tmp_path / "empty.pem").touch()  # the others are not kept waiting for it
    table.write_text(f"one.test {one}\n.sub.test {two}\nbroken.test {tmp_path}/none.pem\nempty.test {tmp_path}/empty.pem\n" +
                     "".join(f"n{n}.test {many}\n" for n in range(150)))
    i = make_instance(main={"tls_server_sni_maps": f"hash:{table}"})
    for service, starttls in (("smtp", "smtp"), ("submissions", None), ("imaps", None), ("pop3", "pop3")):
        got = [presented(i, service, n, starttls) for n in ("one.test", "a.b.sub.test", "sub.test", "n77.test", "else.test")]
        assert got == ["one.test", "two.test", "mx.example.test", "many.test", "mx.example.test"], service
    assert i.wait_log("certificate-unreadable.*none.pem.*tls_server_sni_maps")
    assert i.wait_log("certificate-unreadable.*empty.pem.*input is truncated")
    check = i.tool("check", check=False)
    assert "none.pem: No such file" in check.stdout + check.stderr
    table.write_text(f"else.test {two}\n")
    i.reload()
    end = time.monotonic() + 10 * SLOW
    while (presented(i, "imaps", "else.test"), presented(i, "smtp", "one.test", "smtp")) != ("two.test", "mx.example.test"):
        assert time.monotonic() < end
        time.sleep(0.2)


def test_sni_maps_must_be_listable(make_instance, tmp_path):
    (tmp_path / "rules").write_text("/./ /nowhere\n")
    i = make_instance(start=False, main={"tls_server_sni_maps": f"regexp:{tmp_path}/rules"})
    done = i.tool("check", check=False)
    assert done.returncode and "does not tell which names it has" in done.stdout + done.stderr
