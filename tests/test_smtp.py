"""SMTP, submission, LMTP, sendmail(1) and pickup, with real clients against a whole instance."""
import base64
import email
import os
import pathlib
import re
import shutil
import smtplib
import socket
import subprocess
import time

import pytest

from instance import BIN, SLOW, wait

EHLO = b"EHLO client.example\r\n"
TEXT = b"From: <a@client.example>\r\nTo: <u1@example.test>\r\nSubject: hello\r\n\r\nline\r\n.dot\r\n..two\r\n"


class Wire:
    """A client that says exactly what it is told."""

    def __init__(self, port, greet=True, tls=None):
        self.sock = socket.create_connection(("127.0.0.1", port), 20 * SLOW)
        if tls:
            self.sock = tls.wrap_socket(self.sock, server_hostname="localhost")
        self.file = self.sock.makefile("rb")
        if greet:
            assert self.reply().startswith(b"220 ")

    def reply(self):
        lines = []
        while True:
            line = self.file.readline()
            if not line:
                return b"".join(lines) + b"EOF"
            lines.append(line)
            if line[3:4] != b"-":
                return b"".join(lines)

    def send(self, data):
        self.sock.sendall(data)

    def say(self, data):
        self.send(data)
        return self.reply()

    def code(self, data):
        return int(self.say(data)[:3])

    def starttls(self, context):
        assert self.code(b"STARTTLS\r\n") == 220
        self.sock = context.wrap_socket(self.sock, server_hostname="localhost")
        self.file = self.sock.makefile("rb")

    def rest(self):
        return self.file.read()

    def close(self):
        self.file.close()
        self.sock.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One instance for all tests that leave it as it is."""
    from instance import Instance
    users = {"u1@example.test": "pass1", "u2@example.test": "pass2", "u3@example.test": "pass3"}
    with Instance(tmp_path_factory.mktemp("smtp") / "i", users=users,
                  main={"smtpd_client_connection_count_limit": "0", "message_size_limit": "1000000",
                        "smtpd_error_sleep_time": "0"}) as i:
        yield i


def count(i, user="u1@example.test"):
    return len(i.messages(user))


def last(i, marker, user="u1@example.test", seconds=10):
    """The message that holds marker."""
    end = time.monotonic() + seconds * SLOW
    while time.monotonic() < end:
        for m in i.messages(user):
            if marker in m:
                return m
        time.sleep(0.03)
    raise AssertionError(f"no message with {marker!r}\n{i.tail()}")


# --- real clients ---


def test_smtplib(shared):
    with smtplib.SMTP("127.0.0.1", shared.port["smtp"], "client.example", 20) as s:
        assert s.sendmail("x@client.example", ["u1@example.test"], TEXT.replace(b"hello", b"by-smtplib")) == {}
    m = last(shared, b"by-smtplib").replace(b"\r\n", b"\n")
    assert m.startswith(b"Return-Path: <x@client.example>\n")
    assert b"\nReceived: from client.example (unknown [127.0.0.1])\n\tby mx.example.test (Bulkhead) with ESMTP id " in m
    assert b"\n\tfor <u1@example.test>;\n" in m
    assert m.endswith(b"Subject: by-smtplib\n\nline\n.dot\n..two\n")


def test_smtplib_starttls_and_auth(shared):
    with smtplib.SMTP("localhost", shared.port["submission"], "client.example", 20) as s:
        s.starttls(context=shared.tls())
        s.login("u1@example.test", "pass1")
        assert s.sendmail("u1@example.test", ["u2@example.test"], b"Subject: submitted\r\n\r\nbody\r\n") == {}
    m = email.message_from_bytes(last(shared, b"submitted", "u2@example.test"))
    assert m["Date"] and m["Message-ID"].endswith("@mx.example.test>")
    assert "with ESMTPSA id" in m["Received"] and "127.0.0.1" not in m["Received"] and "client.example" not in m["Received"]
    assert "TLSv1.3" in m["Received"]


def test_smtplib_implicit_tls(shared):
    with smtplib.SMTP_SSL("localhost", shared.port["submissions"], "client.example", timeout=20, context=shared.tls()) as s:
        s.login("u2@example.test", "pass2")
        s.sendmail("u2@example.test", ["u1@example.test"], b"Subject: by-465\r\nDate: x\r\nMessage-ID: <own@x>\r\n\r\nbody\r\n")
    m = last(shared, b"by-465")
    assert m.count(b"Date:") == 1 and m.count(b"Message-ID:") == 1 and b"<own@x>" in m


@pytest.mark.skipif(not shutil.which("swaks"), reason="swaks is not installed")
@pytest.mark.parametrize("auth", ["PLAIN", "LOGIN"])
def test_swaks(shared, auth):
    run = subprocess.run(["swaks", "--server", "127.0.0.1", "--port", str(shared.port["submission"]), "--tls", "--auth", auth,
                          "--auth-user", "u1@example.test", "--auth-password", "pass1", "--from", "u1@example.test",
                          "--to", "u3@example.test", "--helo", "swaks.example", "--body", f"by-swaks-{auth}"],
                         capture_output=True, text=True, timeout=60 * SLOW)
    assert run.returncode == 0, run.stdout + run.stderr
    last(shared, f"by-swaks-{auth}".encode(), "u3@example.test")


@pytest.mark.skipif(not shutil.which("swaks"), reason="swaks is not installed")
def test_swaks_pipelined_port_25(shared):
    run = subprocess.run(["swaks", "--server", "127.0.0.1", "--port", str(shared.port["smtp"]), "--pipeline", "--from", "<>",
                          "--to", "u1@example.test,u2@example.test", "--helo", "swaks.example", "--body", "by-swaks-25"],
                         capture_output=True, text=True, timeout=60 * SLOW)
    assert run.returncode == 0, run.stdout + run.stderr
    m = last(shared, b"by-swaks-25", "u2@example.test")
    assert m.startswith(b"Return-Path: <>") and b"for <" not in m.split(b"Subject")[0]


@pytest.mark.parametrize("scheme,port", [("smtp", "submission"), ("smtps", "submissions")])
def test_curl(shared, tmp_path, scheme, port):
    (tmp_path / "m").write_bytes(f"Subject: by-curl-{scheme}\r\n\r\nbody\r\n".encode())
    run = subprocess.run(["curl", "-sS", "--cacert", shared.data / "self-made.pem", "--ssl-reqd", "--user", "u1@example.test:pass1",
                          "--mail-from", "u1@example.test", "--mail-rcpt", "u2@example.test", "-T", tmp_path / "m",
                          f"{scheme}://localhost:{shared.port[port]}/client.example"], capture_output=True, text=True,
                         timeout=60 * SLOW)
    assert run.returncode == 0, run.stderr
    last(shared, f"by-curl-{scheme}".encode(), "u2@example.test")


@pytest.mark.skipif(not shutil.which("msmtp"), reason="msmtp is not installed")
def test_msmtp(shared):
    run = subprocess.run(["msmtp", "--host=localhost", f"--port={shared.port['submission']}", "--tls=on",
                          f"--tls-trust-file={shared.data}/self-made.pem", "--auth=on", "--user=u1@example.test",
                          "--passwordeval=echo pass1", "--from=u1@example.test", "u3@example.test"],
                         input=b"Subject: by-msmtp\n\nbody\n", capture_output=True, timeout=60 * SLOW)
    assert run.returncode == 0, run.stderr
    last(shared, b"by-msmtp", "u3@example.test")


# --- the rules of port 25 ---


def test_unknown_user_and_relaying(make_instance):
    i = make_instance(main={"mynetworks": "[::1]/128", "smtpd_error_sleep_time": "0"})
    w = Wire(i.port["smtp"])
    w.say(EHLO)
    assert w.code(b"MAIL FROM:<x@client.example>\r\n") == 250
    assert w.say(b"RCPT TO:<nobody-here@example.test>\r\n").startswith(b"550 5.1.1 ")
    assert w.say(b"RCPT TO:<someone@elsewhere.example>\r\n").startswith((b"554 5.7.1 ", b"550 5.7.1 ", b"454 4.7.1 "))
    assert w.say(b"RCPT TO:<someone%elsewhere.example@mx.example.test>\r\n")[:1] == b"5"
    assert w.say(b"RCPT TO:<@mx.example.test:someone@elsewhere.example>\r\n")[:1] in b"45"
    assert w.say(b"RCPT TO:<\"someone@elsewhere.example\"@mx.example.test>\r\n")[:1] == b"5"
    assert w.code(b"RCPT TO:<u1@example.test>\r\n") == 250
    assert w.code(b"RCPT TO:<postmaster>\r\n") == 250
    w.close()


def test_submission_needs_tls_and_login(shared):
    w = Wire(shared.port["submission"])
    assert b"AUTH" not in w.say(EHLO)
    assert w.say(b"MAIL FROM:<u1@example.test>\r\n").startswith(b"530 5.7.0 ")
    assert w.say(b"AUTH PLAIN AHUxQGV4YW1wbGUudGVzdABwYXNzMQ==\r\n").startswith(b"538 5.7.11 ")
    w.starttls(shared.tls())
    assert b"250-AUTH PLAIN LOGIN SCRAM-SHA-256" in w.say(EHLO)
    assert w.say(b"MAIL FROM:<u1@example.test>\r\n").startswith(b"530 5.7.0 ")
    bad = base64.b64encode(b"\0u1@example.test\0wrong")
    assert w.say(b"AUTH PLAIN " + bad + b"\r\n").startswith(b"535 5.7.8 ")
    good = base64.b64encode(b"\0u1@example.test\0pass1")
    assert w.say(b"AUTH PLAIN\r\n") == b"334 \r\n"
    assert w.say(good + b"\r\n").startswith(b"235 2.7.0 ")
    assert w.code(b"AUTH PLAIN " + good + b"\r\n") == 503
    w.close()


def test_sender_must_belong_to_the_login(shared):
    with smtplib.SMTP_SSL("localhost", shared.port["submissions"], "c", timeout=20, context=shared.tls()) as s:
        s.login("u1@example.test", "pass1")
        with pytest.raises((smtplib.SMTPDataError, smtplib.SMTPSenderRefused)) as e:
            s.sendmail("u2@example.test", ["u3@example.test"], b"Subject: forged\r\n\r\nx\r\n")
        assert e.value.smtp_code == 553 and b"5.7.1" in e.value.smtp_error


def test_starttls_injection(shared):
    w = Wire(shared.port["smtp"])
    w.say(EHLO)
    w.send(b"STARTTLS\r\nMAIL FROM:<evil@x.example>\r\nRCPT TO:<u1@example.test>\r\n")
    assert w.reply().startswith(b"220 ")
    w.sock = shared.tls().wrap_socket(w.sock, server_hostname="localhost")
    w.file = w.sock.makefile("rb")
    assert w.code(b"RCPT TO:<u1@example.test>\r\n") == 503
    assert b"STARTTLS" not in w.say(EHLO)
    w.close()


@pytest.mark.parametrize("body", [b"a\n.\n", b"a\n.\r\n", b"a\r\n.\n", b"a\r.\r", b"a\r.\r\n", b"a\r\n.\r", b"a\r\n\r.\r\n",
                                  b"a\r\n.\r\r\n", b"\n.\r\n", b"\r.\n", b"x\rx", b"x\nx"])
def test_smuggling(shared, body):
    before = count(shared)
    w = Wire(shared.port["smtp"])
    w.say(EHLO)
    for line in (b"MAIL FROM:<x@client.example>\r\n", b"RCPT TO:<u1@example.test>\r\n"):
        assert w.code(line) == 250
    assert w.code(b"DATA\r\n") == 354
    w.send(b"Subject: outer\r\n\r\n" + body + b"MAIL FROM:<admin@example.test>\r\nRCPT TO:<u1@example.test>\r\nDATA\r\n"
           b"Subject: smuggled\r\n\r\nevil\r\n.\r\n")
    assert w.reply().startswith(b"550 5.5.2 ")
    assert w.code(b"NOOP\r\n") == 250  # nothing else was answered
    assert w.code(b"QUIT\r\n") == 221
    assert w.rest() == b""
    assert count(shared) == before
    w.close()


def test_smuggling_by_bdat(shared):
    before = count(shared)
    w = Wire(shared.port["smtp"])
    w.say(EHLO)
    w.send(b"MAIL FROM:<x@client.example>\r\nRCPT TO:<u1@example.test>\r\nBDAT 8\r\nA: b\nc\r\nBDAT 6 LAST\r\nQUIT\r\n"
           b"RCPT TO:<u1@example.test>\r\nNOOP\r\n")
    codes = [w.reply()[:3] for _ in range(6)]
    assert codes == [b"250", b"250", b"550", b"503", b"503", b"250"]
    assert w.code(b"DATA\r\n") == 503
    assert count(shared) == before
    w.close()


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\nEHLO x\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
                                   b"CONNECT x:25 HTTP/1.0\r\n", b"  EHLO x\r\n"])
def test_other_protocols(shared, first):
    w = Wire(shared.port["smtp"])
    assert w.say(first).startswith(b"500 5.5.2 ")
    assert w.rest() == b""
    w.close()


def test_talking_before_the_greeting(make_instance):
    i = make_instance(main={"mynetworks": "[::1]/128", "smtpd_greet_wait": "1s"})
    w = Wire(i.port["smtp"], greet=False)
    w.send(EHLO)
    text = w.rest()
    assert text.startswith(b"220 ") and b"554 " in text and b"250" not in text
    w.close()
    w = Wire(i.port["smtp"])  # a patient one is served
    assert w.say(EHLO).startswith(b"250-")
    w.close()


def test_impatient_client(shared):
    w = Wire(shared.port["smtp"])
    w.send(EHLO + b"MAIL FROM:<x@y.example>\r\n")
    assert w.rest().startswith(b"554 5.5.0 ")
    w.close()


def test_error_limit(shared):
    w = Wire(shared.port["smtp"])
    w.say(EHLO)
    for _ in range(19):
        assert w.code(b"FOO\r\n") == 500
    assert w.code(b"NOOP\r\n") == 250
    assert w.code(b"FOO\r\n") == 500
    assert w.reply().startswith(b"421 4.7.0 ")
    assert w.rest() == b""
    w.close()


def test_sizes(shared):
    """At the limit and one octet past it, by DATA and BDAT; what is past is read and refused."""
    head = b"Subject: big\r\n\r\n"
    line = b"x" * 998 + b"\r\n"
    full = head + line * 999
    full += b"y" * (1000000 - len(full) - 2) + b"\r\n"
    assert len(full) == 1000000
    for chunked in (False, True):
        for extra, code in ((b"", 250), (b"z", 552)):
            w = Wire(shared.port["smtp"])
            w.say(EHLO)
            assert w.code(b"MAIL FROM:<x@client.example>\r\n") == 250
            assert w.code(b"RCPT TO:<u2@example.test>\r\n") == 250
            text = full[:-2] + extra + b"\r\n"
            if chunked:
                assert w.code(b"BDAT %d LAST\r\n" % len(text) + text) == code
            else:
                assert w.code(b"DATA\r\n") == 354
                assert w.code(text + b".\r\n") == code
            assert w.code(b"NOOP\r\n") == 250
            w.close()
    w = Wire(shared.port["smtp"])
    w.say(EHLO)
    assert w.say(b"MAIL FROM:<x@client.example> SIZE=1000001\r\n").startswith(b"552 5.3.4 ")
    w.close()
    end, bodies = time.monotonic() + 30 * SLOW, []
    while len(bodies) < 2 and time.monotonic() < end:  # the direct way may have left one to the queue
        time.sleep(0.05)
        bodies = [m for m in shared.messages("u2@example.test") if b"Subject: big" in m]
    assert len(bodies) == 2 and all(m.replace(b"\r\n", b"\n").endswith(full.replace(b"\r\n", b"\n")) for m in bodies)


def test_binarymime_reaches_the_mailbox(shared):
    octets = bytes(range(256)) * 300
    head = b"Subject: binary\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\n" \
           b"Content-Transfer-Encoding: binary\r\n\r\n"
    w = Wire(shared.port["smtp"])
    w.say(EHLO)
    assert w.code(b"MAIL FROM:<x@client.example> BODY=BINARYMIME\r\n") == 250
    assert w.code(b"RCPT TO:<u3@example.test>\r\n") == 250
    assert w.code(b"DATA\r\n") == 503
    assert w.code(b"BDAT %d\r\n" % len(head) + head) == 250
    assert w.code(b"BDAT %d LAST\r\n" % len(octets) + octets) == 250
    w.close()
    last(shared, b"Subject: binary", "u3@example.test")


def test_smtputf8(shared):
    w = Wire(shared.port["smtp"])
    w.say(EHLO)
    assert w.say("MAIL FROM:<mü@client.example>\r\n".encode()).startswith(b"550 5.6.7 ")
    assert w.code("MAIL FROM:<mü@bücher.example> SMTPUTF8\r\n".encode()) == 250
    assert w.code(b"RCPT TO:<u1@example.test>\r\n") == 250
    assert w.code(b"DATA\r\n") == 354
    assert w.code("Subject: Grüße-utf8\r\n\r\nü\r\n.\r\n".encode()) == 250
    w.close()
    m = last(shared, "Grüße-utf8".encode())
    assert "Return-Path: <mü@xn--bcher-kva.example>".encode() in m and b"with UTF8SMTP id" in m


def test_content_without_header(shared):
    w = Wire(shared.port["smtp"])
    w.say(EHLO)
    for line in (b"MAIL FROM:<x@client.example>\r\n", b"RCPT TO:<u1@example.test>\r\n"):
        assert w.code(line) == 250
    assert w.code(b"DATA\r\n") == 354
    assert w.code(b"no header here\r\nFrom: not one\r\n.\r\n") == 250
    w.close()
    m = last(shared, b"no header here").replace(b"\r\n", b"\n")
    assert b"\n\nno header here\nFrom: not one\n" in m


def test_too_many_hops(shared):
    w = Wire(shared.port["smtp"])
    w.say(EHLO)
    for hops, code in ((50, 250), (51, 554)):
        for line in (b"MAIL FROM:<x@client.example>\r\n", b"RCPT TO:<u1@example.test>\r\n"):
            assert w.code(line) == 250
        assert w.code(b"DATA\r\n") == 354
        assert w.code(b"Received: x\r\n" * hops + b"\r\n.\r\n") == code
    w.close()


def test_time_out_and_slow_data(make_instance):
    i = make_instance(override={"smtp": {"smtpd_timeout": "1s", "smtpd_min_data_rate_window": "2s"}})
    w = Wire(i.port["smtp"])
    began = time.monotonic()
    assert w.rest().startswith(b"421 4.4.2 ") and time.monotonic() - began < 5 * SLOW
    w.close()
    w = Wire(i.port["smtp"])
    w.say(EHLO)
    for line in (b"MAIL FROM:<x@client.example>\r\n", b"RCPT TO:<u1@example.test>\r\n"):
        assert w.code(line) == 250
    assert w.code(b"DATA\r\n") == 354
    try:
        for _ in range(100 * SLOW):
            w.send(b"x")
            time.sleep(0.1)
    except OSError:
        pass
    assert w.rest().startswith(b"421 4.4.2 Error: data comes too slowly")
    w.close()


def test_lmtp(shared):
    w = Wire(shared.port["lmtp"])
    assert w.code(EHLO) == 500
    assert b"PIPELINING" in w.say(b"LHLO client.example\r\n")
    assert w.code(b"MAIL FROM:<x@client.example>\r\n") == 250
    assert w.code(b"DATA\r\n") == 503
    w.send(b"RCPT TO:<u1@example.test>\r\nRCPT TO:<nobody-here@example.test>\r\nRCPT TO:<u2@example.test>\r\nDATA\r\n")
    assert [w.reply()[:3] for _ in range(4)] == [b"250", b"550", b"250", b"354"]
    w.send(b"Subject: by-lmtp\r\n\r\nbody\r\n.\r\n")
    assert [w.reply()[:3] for _ in range(2)] == [b"250", b"250"]
    assert w.code(b"QUIT\r\n") == 221
    w.close()
    assert b"with LMTP id" in last(shared, b"by-lmtp")
    last(shared, b"by-lmtp", "u2@example.test")


def test_connection_limit(make_instance):
    i = make_instance(main={"mynetworks": "[::1]/128", "smtpd_client_connection_count_limit": "3"})
    i.wait_log(r"smtpd-child.*smtp-disconnect", count=1)  # of the harness, which asked: it counts too
    open_ones = [Wire(i.port["smtp"]) for _ in range(3)]
    assert Wire(i.port["smtp"], greet=False).rest().startswith(b"421 4.7.0 ")
    open_ones[0].close()
    time.sleep(0.5)
    open_ones[0] = Wire(i.port["smtp"])
    for w in open_ones:
        w.close()


@pytest.mark.parametrize("half_closed", [True, False], ids=["half-closed", "open"])
def test_no_room_is_not_the_fault_of_the_client(make_instance, half_closed):
    """Content waits for its file: neither the end of the client's stream nor the rate of its data ends the session."""
    i = make_instance(main={"smtpd_min_data_rate_window": "1s"})
    body = b"Subject: no-room\r\n\r\n" + (b"w" * 70 + b"\r\n") * 1400
    w = Wire(i.port["smtp"])
    w.say(EHLO)
    assert w.code(b"MAIL FROM:<a@client.example>\r\n") == 250
    assert w.code(b"RCPT TO:<u1@example.test>\r\n") == 250
    qmgr = i.pids("qmgr")[0]
    os.kill(qmgr, 19)
    try:
        w.send(b"BDAT %d LAST\r\n" % len(body) + body[:80000])
        time.sleep(0.5)  # that is more than is kept, and all of it is taken
        w.send(body[80000:] + b"QUIT\r\n")
        if half_closed:
            w.sock.shutdown(socket.SHUT_WR)
        time.sleep(3.5)
    finally:
        os.kill(qmgr, 18)
    assert w.reply().startswith(b"250 2.0.0") and w.reply().startswith(b"221 ") and not w.rest()
    w.close()
    last(i, b"Subject: no-room")


def test_the_time_of_a_client_begins_with_our_answer(make_instance):
    i = make_instance(main={"smtpd_timeout": "3s"})
    w = Wire(i.port["smtp"])
    w.say(EHLO)
    assert w.code(b"MAIL FROM:<a@client.example>\r\n") == 250
    assert w.code(b"RCPT TO:<u1@example.test>\r\n") == 250
    assert w.code(b"DATA\r\n") == 354
    qmgr = i.pids("qmgr")[0]
    os.kill(qmgr, 19)
    try:
        w.send(b"Subject: late\r\n\r\nx\r\n.\r\n")
        time.sleep(4)
    finally:
        os.kill(qmgr, 18)
    assert w.reply().startswith(b"250 ")
    time.sleep(0.5)
    assert w.say(b"NOOP\r\n").startswith(b"250 ")
    w.close()


def test_queue_manager_dies(make_instance):
    """The session goes on with 451, and mail flows again when qmgr is back."""
    i = make_instance(allow_deaths=True)
    w = Wire(i.port["smtp"])
    w.say(EHLO)
    os.kill(i.pids("qmgr")[0], 9)
    codes = set()
    for _ in range(100):
        assert w.code(b"MAIL FROM:<x@client.example>\r\n") == 250
        assert w.code(b"RCPT TO:<u1@example.test>\r\n") in (250, 451)
        code = w.code(b"DATA\r\n")
        if code == 354:
            code = w.code(b"Subject: again\r\n\r\nx\r\n.\r\n")
        codes.add(code)
        if code == 250:
            break
        assert w.code(b"RSET\r\n") == 250
        time.sleep(0.1)
    assert 250 in codes and codes <= {250, 451, 554, 503}, codes
    w.close()
    last(i, b"Subject: again")


def test_graceful_stop_finishes_the_transaction(make_instance):
    i = make_instance()
    idle, busy = Wire(i.port["smtp"]), Wire(i.port["smtp"])
    busy.say(EHLO)
    for line in (b"MAIL FROM:<x@client.example>\r\n", b"RCPT TO:<u1@example.test>\r\n"):
        assert busy.code(line) == 250
    assert busy.code(b"DATA\r\n") == 354
    i.process.send_signal(15)
    assert idle.reply().startswith(b"421 4.3.2 ")
    assert busy.code(b"Subject: finished\r\n\r\nx\r\n.\r\n") == 250
    assert busy.reply().startswith(b"421 4.3.2 ")
    idle.close()
    busy.close()
    i.process.wait(30 * SLOW)
    last(i, b"Subject: finished")


# --- sendmail(1) ---


def sendmail(i, *args, text=b"", status=0, user=None):
    program = BIN / "sendmail"
    if user is not None:  # who may not get through to the folder of the programs
        program = i.folder / "sendmail"
        if not program.exists():
            shutil.copy(BIN / "sendmail", program)
    run = subprocess.run([program, "-C", i.etc, *args], input=text, capture_output=True, timeout=60 * SLOW,
                         user=user, group=user, extra_groups=[] if user else None)
    assert run.returncode == status, (run.returncode, run.stdout, run.stderr)
    return run


def test_sendmail_to_arguments(shared):
    sendmail(shared, "-i", "-f", "me@example.test", "-F", "Jörg Test", "u1@example.test", "u2@example.test",
             text=b"Subject: by-sendmail\n\nline\n.\nafter the dot\n")
    m = last(shared, b"by-sendmail")
    assert b"after the dot" in m and b"From: =?utf-8?B?SsO2cmcgVGVzdA==?= <me@example.test>" in m
    assert f"(Bulkhead, from userid {os.getuid()})".encode() in m
    parsed = email.message_from_bytes(m)
    assert parsed["Date"] and parsed["Message-ID"]
    last(shared, b"by-sendmail", "u2@example.test")


def test_sendmail_dot_ends_without_i(shared):
    sendmail(shared, "u1@example.test", text=b"Subject: dotted\n\nline\n.\nnot this\n")
    assert b"not this" not in last(shared, b"Subject: dotted")


def test_sendmail_t(shared):
    sendmail(shared, "-t", "-oi", text=b"To: U One <u1@example.test>,\n u2@example.test\nBcc: u3@example.test\n"
             b"Subject: from-headers\nFrom: me@example.test\n\nbody\n")
    for user in ("u1@example.test", "u2@example.test", "u3@example.test"):
        m = last(shared, b"from-headers", user)
        assert b"Bcc" not in m and m.count(b"\nFrom: ") == 1


def test_sendmail_line_ends(shared):
    sendmail(shared, "-i", "u1@example.test", text=b"Subject: crlf-in\r\n\r\nstray\rreturn\r\nend\r\n")
    assert b"stray return\nend\n" in last(shared, b"crlf-in").replace(b"\r\n", b"\n")


def test_sendmail_exit_codes(shared):
    assert b"User unknown" in sendmail(shared, "nobody-here@example.test", text=b"x\n", status=67).stderr \
        or b"5.1.1" in sendmail(shared, "nobody-here@example.test", text=b"x\n", status=67).stderr
    sendmail(shared, text=b"x\n", status=64)
    sendmail(shared, "-t", text=b"Subject: nobody\n\nx\n", status=64)
    sendmail(shared, "a b@c d", text=b"x\n", status=65)
    sendmail(shared, "-f", "a\nb", "u1@example.test", text=b"x\n", status=65)
    sendmail(shared, "-bd", status=64)
    sendmail(shared, "-V", "a\nb", "u1@example.test", text=b"x\n", status=64)
    sendmail(shared, "-V", "id with = and +", "-N", "never", "-R", "hdrs", "u1@example.test", text=b"x\n")
    sendmail(shared, "-bv", "u1@example.test")
    sendmail(shared, "-bv", "nobody-here@example.test", status=67)


def test_sendmail_bs(shared):
    run = sendmail(shared, "-bs", text=b"EHLO x\r\nMAIL FROM:<me@example.test>\r\nRCPT TO:<u1@example.test>\r\nDATA\r\n"
                   b"Subject: by-bs\r\n\r\nx\r\n.\r\nQUIT\r\n")
    assert b"221 2.0.0" in run.stdout and b"STARTTLS" not in run.stdout
    last(shared, b"by-bs")


def transactions(i, marker):
    """{session and transaction: the recipients to whom it was delivered}, of messages from that sender."""
    out = {}
    for line in i.log().splitlines():
        m = re.search(rf" delivery qid=(\S+) from=<{marker}@example.test> to=<(\S+)> status=sent", line)
        if m:
            out.setdefault(m[1], []).append(m[2])
    return out


@pytest.mark.parametrize("down", [False, True], ids=["up", "down"])
def test_sendmail_to_more_than_one_transaction_takes(make_instance, down):
    """smtpd_recipient_limit is not the limit of a message: nobody is left out, nobody gets it twice."""
    i = make_instance(main={"recipient_delimiter": "+", "smtpd_recipient_limit": "20"})
    to = [f"u1+{n}@example.test" for n in range(45)] + ["nobody-here@example.test"]
    if down:
        i.stop()
    sendmail(i, "-i", "-f", "many@example.test", *to, text=b"Subject: to-many\n\nx\n", status=0 if down else 67)
    if down:
        i.start()
    wait(lambda: sum(map(len, transactions(i, "many").values())) >= 45, 20, "all deliveries")
    got = transactions(i, "many")
    assert sorted(sum(got.values(), [])) == sorted(to[:45]) and len(got) == 3
    wait(lambda: not os.listdir(i.spool / "maildrop"), 20, "an empty maildrop")


def test_sendmail_counts_what_it_adds(make_instance):
    """LF that becomes CRLF counts: what pickup would not take is not left for it with exit status 0."""
    i = make_instance(main={"message_size_limit": "100000", "queue_minfree": "1M"})
    text = b"Subject: grows\n\n" + b"line\n" * 19990
    assert len(text) < 100000
    sendmail(i, "-i", "u1@example.test", text=text, status=65)
    i.set(maildrop_file_limit="50000")
    i.stop()
    sendmail(i, "-i", "u1@example.test", text=text, status=65)
    assert b"maildrop_file_limit" in sendmail(i, "-i", "u1@example.test", text=text[:60000], status=75).stderr
    assert not os.listdir(i.spool / "maildrop")


def drop(i, name, content):
    """Leaves a file in maildrop as sendmail(1) does."""
    folder = i.spool / "maildrop"
    (folder / f".{name}").write_bytes(b"bulkhead-maildrop 1\nsender u1@example.test\n" + content)
    (folder / f".{name}").chmod(0o644)
    (folder / f".{name}").rename(folder / name)


def test_bcc_of_what_is_submitted_here(make_instance):
    """Also without -t, by maildrop, and where it is most of the header."""
    i = make_instance()
    text = b"Bcc: u9@example.test\n" * 900 + b"Subject: x\nBCC: u9@example.test,\n u8@example.test\n\nBcc: of the body\n"
    sendmail(i, "-i", "u1@example.test", text=text)
    drop(i, "hidden", b"recipient u1@example.test\n\n" + text.replace(b"\n", b"\r\n"))
    for m in i.wait_messages("u1@example.test", 2):
        head, _, body = m.replace(b"\r\n", b"\n").partition(b"\n\n")
        assert b"Subject: x" in head and b"bcc" not in head.lower() and b"u8@" not in head and body == b"Bcc: of the body\n", m


def test_pickup_of_more_recipients_than_are_taken(make_instance):
    i = make_instance(main={"smtpd_recipient_limit": "20"})
    drop(i, "many", b"recipient u1@example.test\n" * 21 + b"\nSubject: x\r\n\r\nx\r\n")
    assert "smtpd_recipient_limit" in i.wait_log(" maildrop-refused ")[0]


def test_more_recipients_than_an_envelope_holds(make_instance):
    """An envelope that is refused is refused whole, also where its parts came one by one."""
    names = ", ".join(f"a{n}@far.test" for n in range(1000))
    i = make_instance(main={"virtual_alias_domains": "lists.test", "virtual_alias_maps": f"inline:{{ {{ all@lists.test = {names} }} }}"})
    drop(i, "too-many", b"recipient all@lists.test\n" * 70 + b"\nSubject: x\r\n\r\nx\r\n")
    assert "code=554" in i.wait_log(" pickup-message .*nrcpt=70 ", 60)[0]
    wait(lambda: (i.spool / "maildrop" / ".bad.too-many").exists(), 20, "the file set aside")
    assert "queue is empty" in i.tool("queue", "list").stdout


def test_sendmail_while_down_and_pickup(make_instance):
    i = make_instance()
    i.stop()
    user = 65534 if os.getuid() == 0 else None
    sendmail(i, "-i", "-f", "me@example.test", "u1@example.test", text=b"Subject: while-down\n\nx\n.\ny\n", user=user)
    big = b"Subject: big-while-down\n\n" + b"z" * 70 + b"\n" * 1 + (b"w" * 70 + b"\n") * 3000
    sendmail(i, "-i", "u1@example.test", text=big, user=user)
    drop = i.spool / "maildrop"
    assert len([p for p in drop.iterdir()]) == 2
    if os.getuid() == 0:
        # what a hostile user can leave there: links, junk, a folder, a second name
        (drop / "junk").write_bytes(b"no such thing")
        (drop / "half").write_bytes(b"bulkhead-maildrop 1\nsender \nrecipient u1@example.test\n\nbare\nlines\n")
        os.symlink("/etc/passwd", drop / "link")
        os.link(drop / "junk", drop / "hard")
        (drop / "dir").mkdir()
        os.mkfifo(drop / "fifo")
        for p in drop.iterdir():
            if p.name in ("junk", "half"):
                os.chmod(p, 0o644)
    i.start()
    m = last(i, b"Subject: while-down")
    uid = 65534 if user else os.getuid()
    assert b"\nx\n.\ny\n" in m.replace(b"\r\n", b"\n") and f"from userid {uid}".encode() in m
    assert b"w" * 70 in last(i, b"big-while-down")
    left = {p.name for p in drop.iterdir()}
    end = time.monotonic() + 10 * SLOW
    while time.monotonic() < end and any(not n.startswith(".bad") and n != "dir" for n in left):
        time.sleep(0.1)
        left = {p.name for p in drop.iterdir()}
    assert all(n.startswith(".bad") or n == "dir" for n in left), left
    if os.getuid() == 0:
        assert len(i.wait_log("maildrop-refused", count=5)) >= 5
        assert b"root:" not in b"".join(i.messages("u1@example.test"))


def test_pickup_tells_what_waits_and_what_never_goes(make_instance):
    """What the queue refuses for ever is set aside, and not tried every minute; one line tells of all that one owner has
    too many of."""
    i = make_instance(start=False, main={"message_size_limit": "100000", "queue_minfree": "1M", "maildrop_owner_limit": "3"})
    i.start()
    i.stop()
    drop, head = i.spool / "maildrop", b"bulkhead-maildrop 1\nsender \nrecipient u1@example.test\n\nSubject: x\r\n\r\n"
    (drop / "0-large").write_bytes(head + (b"y" * 98 + b"\r\n") * 2000)
    for n in range(50):
        (drop / f"small-{n}").write_bytes(head + b"z\r\n")
    for p in drop.iterdir():
        p.chmod(0o644)
    i.start()
    wait(lambda: len(list(drop.glob("small-*"))) + len(list(drop.glob("0-*"))) <= 48)
    said = i.wait_log("maildrop-limit")
    assert len(said) == 1
    (drop / ".0").write_bytes(head + (b"y" * 98 + b"\r\n") * 2000)
    (drop / ".0").chmod(0o644)
    for p in drop.glob("small-*"):
        p.unlink(missing_ok=True)
    (drop / ".0").rename(drop / "1-large")
    wait(lambda: (drop / ".bad.1-large").exists())
    assert "larger than the limit" in i.wait_log("maildrop-refused.*1-large")[0]


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user")
def test_authorized_submit_users(make_instance):
    i = make_instance(main={"authorized_submit_users": "!nobody, static:anyone"})
    assert b"554" in sendmail(i, "u1@example.test", text=b"x\n", user=65534, status=77).stderr
    sendmail(i, "u1@example.test", text=b"Subject: allowed\n\nx\n", user=1)
    last(i, b"Subject: allowed")


# --- the corpus ---

VECTORS = pathlib.Path(__file__).resolve().parent.parent.parent / "shared/vectors/messages"


def corpus():
    """(name, content as a sender makes it: every CR, LF or CRLF is a line end) of each message of the vectors."""
    for path in sorted(VECTORS.rglob("*")):
        if path.suffix in (".eml", ".msg") or (path.suffix == ".txt" and path.parent.name in ("messages", "python-test-email")):
            data = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            yield str(path.relative_to(VECTORS)), (data if data.endswith(b"\n") else data + b"\n")


@pytest.mark.skipif(not VECTORS.is_dir(), reason="the vectors are not there")
@pytest.mark.parametrize("way", ["DATA", "BDAT"])
def test_corpus_byte_for_byte(make_instance, way):
    i = make_instance()
    sent = {}
    w = Wire(i.port["smtp"])
    w.say(EHLO)
    for n, (name, data) in enumerate(corpus()):
        sender = f"m{n}@client.example"
        wire = data.replace(b"\n", b"\r\n")
        assert w.code(b"MAIL FROM:<%s> BODY=8BITMIME\r\n" % sender.encode()) == 250
        assert w.code(b"RCPT TO:<u1@example.test>\r\n") == 250
        if way == "DATA":
            assert w.code(b"DATA\r\n") == 354
            stuffed = wire.replace(b"\r\n.", b"\r\n..")
            reply = w.say((b"." if stuffed.startswith(b".") else b"") + stuffed + b".\r\n")
        else:
            half = len(wire) // 2
            assert w.code(b"BDAT %d\r\n" % half + wire[:half]) == 250
            reply = w.say(b"BDAT %d LAST\r\n" % (len(wire) - half) + wire[half:])
        assert reply.startswith(b"250 "), (name, reply)
        sent[sender] = (name, data)
    assert len(sent) > 150
    for m in i.wait_messages("u1@example.test", len(sent), 30):
        head, _, rest = m.partition(b"\n")
        name, data = sent.pop(head.split(b"<")[1].split(b">")[0].decode())
        assert rest.endswith(data) or data in (b"",), name
        trace = rest[: len(rest) - len(data)]
        fields = [line.split(b":")[0] for line in trace.split(b"\n") if line and line[:1] not in (b"\t", b" ")]
        assert fields == [b"X-Original-To", b"Delivered-To", b"Received"], (name, trace)
    assert not sent
    w.close()


def test_log_tells_the_story(shared):
    with smtplib.SMTP("127.0.0.1", shared.port["smtp"], "story.example", 20) as s:
        s.sendmail("story@client.example", ["u1@example.test"], b"Subject: story\r\n\r\nx\r\n")
    line = shared.wait_log("smtp-message .*from=story@client.example")[0]
    assert "code=250" in line and "qid=" in line and "nrcpt=1" in line


def test_always_bcc(make_instance):
    i = make_instance(main={"always_bcc": "u2@example.test"}, users={"u1@example.test": "p", "u2@example.test": "p"})
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], "c", 20) as s:
        s.sendmail("x@client.example", ["u1@example.test"], b"Subject: copied\r\n\r\nx\r\n")
    last(i, b"Subject: copied")
    last(i, b"Subject: copied", "u2@example.test")
    i.stop()
    sendmail(i, "u1@example.test", text=b"Subject: copied-by-pickup\n\nx\n")
    i.start()
    last(i, b"copied-by-pickup", "u2@example.test")


def test_external_by_client_certificate(make_instance, tmp_path):
    """Off by default; with auth_external the name in a certificate of the known authority is the login."""
    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=tmp_path, check=True, capture_output=True)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
            "-subj", "/CN=Test CA", "-days", "2")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "u.key", "-out", "u.csr", "-subj",
            "/CN=u1@example.test")
    openssl("x509", "-req", "-in", "u.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "u.pem", "-days", "2")
    (tmp_path / "ca.pem").chmod(0o644)
    i = make_instance(main={"auth_external": "yes", "smtpd_tls_CAfile": tmp_path / "ca.pem"})
    context = i.tls()
    with_no_certificate = Wire(i.port["submissions"], tls=context)
    assert b" EXTERNAL" in with_no_certificate.say(EHLO)
    assert with_no_certificate.code(b"AUTH EXTERNAL =\r\n") // 100 == 5
    with_no_certificate.close()
    context.load_cert_chain(tmp_path / "u.pem", tmp_path / "u.key")
    w = Wire(i.port["submissions"], tls=context)
    w.say(EHLO)
    assert w.code(b"AUTH EXTERNAL =\r\n") == 235
    assert w.code(b"MAIL FROM:<u1@example.test>\r\n") == 250
    w.close()
