"""Submission with a login, by real clients and by hand; and our own login at a smarthost."""
import base64
import hashlib
import json
import shutil
import smtplib
import socket
import ssl
import subprocess
import time

import pytest

from instance import SLOW, Instance
from nodejs import run_node
from scram import Scram, client_context, end_point

MESSAGE = b"From: u1@example.test\r\nTo: u1@example.test\r\nSubject: %s\r\n\r\nHello\r\n"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    i = Instance(tmp_path_factory.mktemp("submission") / "i",
                 users={"u1@example.test": "pass1", "u2@example.test": "pass2"},
                 main={"auth_failure_delay": "0"})
    with i:
        i.tool("user", "change", "u2@example.test", "sender=sales@example.test", "sender=@lists.example.test")
        yield i


def context(i):
    return client_context(i.data / "self-made.pem")


def connect(i):
    s = smtplib.SMTP("127.0.0.1", i.port["submission"], timeout=20 * SLOW)
    s.starttls(context=context(i))
    s.ehlo()
    return s


def auth(s, mechanism, *responses, initial=None):
    """The last reply code and text of an AUTH exchange."""
    code, text = s.docmd("AUTH", mechanism + ("" if initial is None else " " + (base64.b64encode(initial).decode() or "=")))
    for response in responses:
        if code != 334:
            break
        if callable(response):
            response = response(base64.b64decode(text))
        code, text = s.docmd(base64.b64encode(response).decode())
    return code, text


def scram(s, mechanism, x, initial=True):
    def last(final):
        x.check(final)
        return b""
    if initial:
        code, text = auth(s, mechanism, x.final, last, initial=x.first())
    else:
        code, text = auth(s, mechanism, x.first(), x.final, last)
    assert x.checked == (code == 235), text
    return code, text


def test_no_auth_before_tls(shared):
    s = smtplib.SMTP("127.0.0.1", shared.port["submission"], timeout=20)
    s.ehlo()
    assert not s.has_extn("auth") and s.has_extn("starttls")
    assert s.docmd("AUTH", "PLAIN AHUxQGV4YW1wbGUudGVzdABwYXNzMQ==")[0] in (502, 503, 504, 530, 538)
    assert s.docmd("MAIL FROM:<u1@example.test>")[0] == 530
    s.close()


def test_mail_needs_a_login(shared):
    s = connect(shared)
    assert s.docmd("MAIL FROM:<u1@example.test>")[0] == 530
    s.quit()


@pytest.mark.parametrize("initial", [True, False])
def test_mechanisms(shared, initial):
    s = connect(shared)
    secret = b"\0u1@example.test\0pass1"
    code, _ = auth(s, "PLAIN", initial=secret) if initial else auth(s, "PLAIN", secret)
    assert code == 235
    assert s.docmd("AUTH", "PLAIN " + base64.b64encode(secret).decode())[0] == 503  # once per session
    s.quit()
    s = connect(shared)
    code, _ = auth(s, "LOGIN", b"pass1", initial=b"u1@example.test") if initial else \
        auth(s, "LOGIN", b"u1@example.test", b"pass1")
    assert code == 235
    s.quit()
    s = connect(shared)
    assert scram(s, "SCRAM-SHA-256", Scram("u1@example.test", "pass1"), initial)[0] == 235
    s.quit()
    s = connect(shared)
    x = Scram("u1@example.test", "pass1", binding=end_point(s.sock))
    assert scram(s, "SCRAM-SHA-256-PLUS", x, initial)[0] == 235
    s.sendmail("u1@example.test", ["u1@example.test"], MESSAGE % b"bound")
    s.quit()


def test_tls_exporter_binding(shared):
    ssl_lib = pytest.importorskip("OpenSSL.SSL")
    c = ssl_lib.Context(ssl_lib.TLS_CLIENT_METHOD)
    s = ssl_lib.Connection(c, socket.create_connection(("127.0.0.1", shared.port["submissions"]), 20))
    s.setblocking(True)
    s.set_connect_state()
    s.do_handshake()

    def reply():
        text = b""
        while not text.endswith(b"\r\n") or text.split(b"\r\n")[-2][3:4] == b"-":
            text += s.recv(4096)
        return text

    def say(line):
        s.sendall(line + b"\r\n")
        return reply()

    reply()
    assert b"SCRAM-SHA-256-PLUS" in say(b"EHLO test")
    for data in (s.export_keying_material(b"EXPORTER-Channel-Binding", 32, b""), bytes(32)):
        x = Scram("u1@example.test", "pass1", binding=("tls-exporter", data))
        r = say(b"AUTH SCRAM-SHA-256-PLUS " + base64.b64encode(x.first()))
        assert r.startswith(b"334 "), r
        r = say(base64.b64encode(x.final(base64.b64decode(r[4:]))))
        if data == bytes(32):
            assert r.startswith(b"535"), r
        else:
            assert r.startswith(b"334"), r
            x.check(base64.b64decode(r[4:]))
            assert say(b"").startswith(b"235")
            s.close()
            s = ssl_lib.Connection(c, socket.create_connection(("127.0.0.1", shared.port["submissions"]), 20))
            s.setblocking(True)
            s.set_connect_state()
            s.do_handshake()
            reply()
            say(b"EHLO test")
    s.close()


@pytest.mark.parametrize("mechanism,response", [
    ("PLAIN", b"\0u1@example.test\0pass2"), ("PLAIN", b"\0nobody\0x"), ("PLAIN", b"u2@example.test\0u1@example.test\0pass1"),
    ("PLAIN", b"\0u1@example.test\0pass1\0pass1"), ("PLAIN", b""), ("SCRAM-SHA-256", b"n,,n=u1@example.test"),
    ("SCRAM-SHA-256", b"n,,r=abc,n=u1@example.test"), ("SCRAM-SHA-256-PLUS", b"n,,n=u1@example.test,r=abcdefgh")])
def test_refused(shared, mechanism, response):
    s = connect(shared)
    code, _ = auth(s, mechanism, response)
    assert code in (501, 535), code
    assert s.docmd("MAIL FROM:<u1@example.test>")[0] == 530
    s.quit()


@pytest.mark.parametrize("line", ["AUTH", "AUTH FOO", "AUTH CRAM-MD5", "AUTH PLAIN ****", "AUTH PLAIN AA=A", "AUTH PLAIN a b c"])
def test_broken_auth(shared, line):
    s = connect(shared)
    assert s.docmd(line)[0] in (501, 504, 535)
    s.putcmd("AUTH PLAIN")
    assert s.getreply()[0] == 334
    assert s.docmd("*")[0] in (501, 535)
    assert auth(s, "PLAIN", initial=b"\0u1@example.test\0pass1")[0] == 235
    s.quit()


def test_sender_must_belong_to_the_login(shared):
    s = connect(shared)
    s.login("u2@example.test", "pass2")
    for sender, ok in (("u2@example.test", True), ("sales@example.test", True), ("x@lists.example.test", True),
                       ("u1@example.test", False), ("root@mx.example.test", False), ("x@notlists.example.test", False)):
        if ok:
            s.sendmail(sender, ["u1@example.test"], MESSAGE % b"owned")
        else:
            with pytest.raises((smtplib.SMTPDataError, smtplib.SMTPSenderRefused, smtplib.SMTPRecipientsRefused)) as e:
                s.sendmail(sender, ["u1@example.test"], MESSAGE % b"stolen")
            assert "553" in str(e.value)
            s.rset()
    s.quit()
    assert not [m for m in shared.messages("u1@example.test") if b"stolen" in m]


def test_a_login_is_counted_by_the_hour(make_instance):
    """submission_message_rate_limit is per hour, whatever anvil_rate_time_unit says of clients."""
    i = make_instance(users={"u1@example.test": "pass1", "u2@example.test": "pass2"},
                      main={"anvil_rate_time_unit": "1s", "submission_message_rate_limit": "1"})
    for user, code in ("u1", 250), ("u1", 450), ("u2", 250):
        with connect(i) as s:
            s.login(f"{user}@example.test", f"pass{user[1]}")
            s.mail(f"{user}@example.test"), s.rcpt("u1@example.test")
            assert s.data(MESSAGE % b"counted")[0] == code
        time.sleep(1.1)


def test_starttls_injection(shared):
    time.sleep(0.2 * SLOW)  # the log comes in batches
    before = shared.log().count("auth-ok")
    raw = socket.create_connection(("127.0.0.1", shared.port["submission"]), 20)
    raw.recv(1000)
    raw.sendall(b"EHLO x\r\n")
    raw.recv(4000)
    raw.sendall(b"STARTTLS\r\nAUTH PLAIN AHUxQGV4YW1wbGUudGVzdABwYXNzMQ==\r\n")
    assert raw.recv(1000).startswith((b"220", b"5"))
    try:
        s = context(shared).wrap_socket(raw, server_hostname="localhost")
        s.sendall(b"NOOP\r\n")
        assert s.recv(1000).startswith((b"250", b"503"))
    except (ssl.SSLError, ConnectionError):
        pass
    assert shared.log().count("auth-ok") == before


@pytest.mark.skipif(not shutil.which("msmtp"), reason="no msmtp here")
@pytest.mark.parametrize("mechanism,tls", [("plain", "starttls"), ("login", "implicit"), ("scram-sha-256", "starttls")])
def test_msmtp(shared, mechanism, tls):
    subject = f"msmtp-{mechanism}"
    done = subprocess.run(
        ["msmtp", "--host=localhost", f"--port={shared.port['submission' if tls == 'starttls' else 'submissions']}",
         "--tls=on", f"--tls-starttls={'on' if tls == 'starttls' else 'off'}",
         f"--tls-trust-file={shared.data}/self-made.pem", f"--auth={mechanism}", "--user=u1@example.test",
         "--passwordeval=echo pass1", "--from=u1@example.test", "u1@example.test"],
        input=(MESSAGE % subject.encode()).replace(b"\r\n", b"\n"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=60, check=False)
    if b"not supported" in done.stdout or b"not available" in done.stdout:
        pytest.skip(done.stdout.decode())
    assert done.returncode == 0, done.stdout
    assert any(subject.encode() in m for m in shared.wait_messages("u1@example.test"))
    wrong = subprocess.run(
        ["msmtp", "--host=localhost", f"--port={shared.port['submission']}", "--tls=on",
         f"--tls-trust-file={shared.data}/self-made.pem", f"--auth={mechanism}", "--user=u1@example.test",
         "--passwordeval=echo wrong", "--from=u1@example.test", "u1@example.test"],
        input=MESSAGE % b"wrong", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)
    assert wrong.returncode == 77 and b"535" in wrong.stdout, wrong.stdout


def test_nodemailer(shared):
    options = {"host": "localhost", "requireTLS": True,
               "auth": {"user": "u1@example.test", "pass": "pass1"},
               "tls": {"ca": (shared.data / "self-made.pem").read_text()}}
    script = """
const nodemailer = require('nodemailer');
const options = %s;
(async () => {
  for (const [port, secure] of [[%d, false], [%d, true]]) {
    const t = nodemailer.createTransport({...options, port, secure});
    await t.verify();
    const sent = await t.sendMail({from: 'u1@example.test', to: 'u1@example.test', subject: 'nodemailer ' + secure,
      text: 'plain \\u00e4', html: '<b>html</b>', attachments: [{filename: 'a.bin', content: Buffer.alloc(100000, 7)}]});
    console.log(sent.response);
    t.close();
  }
  const bad = nodemailer.createTransport({...options, port: %d, auth: {user: 'u1@example.test', pass: 'no'}});
  try { await bad.verify(); process.exit(1); } catch (e) { console.log(e.responseCode); }
})();
""" % (json.dumps(options), shared.port["submission"], shared.port["submissions"], shared.port["submission"])
    out = run_node(script, "nodemailer").split("\n")
    assert out[0].startswith("250") and out[1].startswith("250") and out[2] == "535", out
    for _ in range(50):
        found = [m for m in shared.wait_messages("u1@example.test") if b"nodemailer " in m]
        if len(found) >= 2:
            break
    assert len(found) == 2


# --- our own login at a smarthost ---

@pytest.mark.parametrize("filter_", ["", "plain", "scram-sha-256"])
def test_smarthost_with_password(make_instance, tmp_path, filter_):
    hub = make_instance(users={"relay@hub.test": "secret relay", "u1@example.test": "pass1"},
                        main={"auth_failure_delay": "0", "submission_sender_check": "no"})
    table = tmp_path / "passwords"
    table.write_text(f"[127.0.0.1]:{hub.port['submission']} relay@hub.test:secret relay\n")
    table.chmod(0o600)
    leaf = make_instance(main={"relayhost": f"[127.0.0.1]:{hub.port['submission']}", "virtual_mailbox_domains": "leaf.test",
                               "smtp_sasl_auth_enable": "yes", "smtp_sasl_password_maps": f"texthash:{table}",
                               "smtp_sasl_mechanism_filter": filter_, "myhostname": "mx.leaf.test",
                               "smtp_tls_security_level": "encrypt"}, users={"u2@leaf.test": "pass2"})
    s = smtplib.SMTP("127.0.0.1", leaf.port["smtp"], timeout=20 * SLOW)
    s.sendmail("u2@leaf.test", ["u1@example.test"], MESSAGE % b"by the hub")
    s.quit()
    found = hub.wait_messages("u1@example.test", seconds=15)
    assert hashlib.sha256(found[0].split(b"\r\n\r\n", 1)[-1] or found[0]).digest()
    assert b"by the hub" in found[0]
    line = hub.wait_log(r"auth-ok .*user=relay@hub.test")[0]
    assert f"mechanism={filter_.upper()}" in line if filter_ else "mechanism=SCRAM-SHA-256" in line, line
    assert "secret relay" not in leaf.log() + hub.log()


def test_smarthost_with_wrong_password_defers(make_instance, tmp_path):
    hub = make_instance(users={"relay@hub.test": "right"}, main={"auth_failure_delay": "0"})
    table = tmp_path / "passwords"
    table.write_text(f"[127.0.0.1]:{hub.port['submission']} relay@hub.test:wrong\n")
    table.chmod(0o600)
    leaf = make_instance(main={"relayhost": f"[127.0.0.1]:{hub.port['submission']}", "virtual_mailbox_domains": "leaf.test",
                               "smtp_sasl_auth_enable": "yes", "smtp_sasl_password_maps": f"texthash:{table}",
                               "myhostname": "mx.leaf.test"}, users={"u2@leaf.test": "pass2"})
    s = smtplib.SMTP("127.0.0.1", leaf.port["smtp"], timeout=20 * SLOW)
    s.sendmail("u2@leaf.test", ["u1@example.test"], MESSAGE % b"by the hub")
    s.quit()
    hub.wait_log("auth-failed .*user=relay@hub.test")
    leaf.wait_log("status=deferred.*authentication failed")
    table.write_text(f"[127.0.0.1]:{hub.port['submission']} relay@hub.test:right\n")
    leaf.wait_log("auth-renew")  # auth reads the table anew
    end = time.monotonic() + 20 * SLOW
    while "auth-ok" not in hub.log():  # auth may just be starting
        assert time.monotonic() < end, leaf.tail()
        leaf.tool("queue", "flush")
        time.sleep(0.5)
