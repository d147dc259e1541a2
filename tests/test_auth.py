"""Logins: mechanisms, channel binding, wrong passwords, tokens, and the way to the user's session."""
import base64
import imaplib
import os
import poplib
import re
import shutil
import socket
import ssl
import subprocess
import time

import pytest

from instance import SLOW, Instance
from scram import Scram, client_context, end_point

USERS = {"u1@example.test": "pass1", "bob": "secret two", "carol@example.test": "geh\u00e4im"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One instance for the tests that leave nothing behind; failures are told at once."""
    i = Instance(tmp_path_factory.mktemp("auth") / "i", users=USERS,
                 main={"auth_failure_delay": "0", "auth_mechanisms":
                       "PLAIN LOGIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS SCRAM-SHA-1 SCRAM-SHA-1-PLUS"})
    with i:
        yield i


class Imap:
    """A plain-text view of one IMAP connection."""

    def __init__(self, i, port="imaps", tls=True, context=None):
        self.context = context or client_context(i.data / "self-made.pem")
        self.sock = socket.create_connection(("127.0.0.1", i.port[port]), 10 * SLOW)
        if tls:
            self.start_tls()
        self.file = self.sock.makefile("rb")
        self.greeting = self.line()

    def start_tls(self):
        self.sock = self.context.wrap_socket(self.sock, server_hostname="localhost")
        self.file = self.sock.makefile("rb")

    def line(self):
        return self.file.readline()

    def send(self, data):
        self.sock.sendall(data)

    def command(self, text, tag=b"t"):
        self.send(tag + b" " + text + b"\r\n")
        lines = []
        while True:
            line = self.line()
            if not line:
                raise EOFError(b"".join(lines))
            lines.append(line)
            if line.startswith(tag + b" ") or line.startswith(b"+ "):
                return b"".join(lines)

    def authenticate(self, mechanism, *responses, initial=None):
        """The last line, after as many responses (bytes or functions of the challenge) as are asked for."""
        line = self.command(f"AUTHENTICATE {mechanism}".encode() +
                            (b"" if initial is None else b" " + (base64.b64encode(initial) or b"=")))
        for response in responses:
            if not line.startswith(b"+"):
                break
            if callable(response):
                response = response(base64.b64decode(line[2:].strip()))
            self.send(base64.b64encode(response) + b"\r\n")
            line = self.line()
        return line

    def close(self):
        self.file.close()
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def scram(c, mechanism, s, initial=True):
    def last(final):
        s.check(final)
        return b""
    if initial:
        line = c.authenticate(mechanism, s.final, last, initial=s.first())
    else:
        line = c.authenticate(mechanism, s.first(), s.final, last)
    assert s.checked == line.startswith(b"t OK"), line
    return line


# --- mechanisms ---

def test_no_password_without_tls(shared):
    with Imap(shared, "imap", tls=False) as c:
        assert b"LOGINDISABLED" in c.greeting and b"AUTH=" not in c.greeting and b"STARTTLS" in c.greeting
        assert b" NO " in c.command(b"LOGIN u1@example.test pass1") or b"PRIVACYREQUIRED" in c.line()
        assert not c.command(b"AUTHENTICATE PLAIN AHUxAHBhc3Mx").startswith(b"t OK")
    assert not re.search(r"auth-ok .*service=imap", shared.log())


@pytest.mark.parametrize("user,password", USERS.items())
def test_plain_and_login(shared, user, password):
    for mechanism in ("PLAIN", "LOGIN"):
        with Imap(shared) as c:
            if mechanism == "PLAIN":
                line = c.authenticate("PLAIN", initial=f"\0{user}\0{password}".encode())
            else:
                line = c.authenticate("LOGIN", user.encode(), password.encode())
            assert line.startswith(b"t OK"), line
    with Imap(shared) as c:
        assert c.authenticate("PLAIN", f"\0{user.upper()}\0{password}".encode()).startswith(b"t OK")


@pytest.mark.parametrize("response", [b"\0u1@example.test\0pass2", b"\0u1@example.test\0", b"\0nobody\0pass1",
                                      b"bob\0u1@example.test\0pass1", b"\0u1\0pass1", b"\0../bob\0secret two",
                                      b"\0u1@example.test\0pass1\0", b"u1@example.test", b"", b"\0\0",
                                      b"\0" + b"x" * 2000 + b"\0y"])
def test_plain_refused(shared, response):
    with Imap(shared) as c:
        line = c.authenticate("PLAIN", response)
        assert line.startswith((b"t NO", b"t BAD")), line
        assert c.authenticate("PLAIN", initial=b"\0u1@example.test\0pass1").startswith(b"t OK")


@pytest.mark.parametrize("initial", [True, False])
@pytest.mark.parametrize("mechanism,name", [("SCRAM-SHA-256", "sha256"), ("SCRAM-SHA-1", "sha1")])
def test_scram(shared, mechanism, name, initial):
    with Imap(shared) as c:
        s = Scram("u1@example.test", "pass1", name)
        assert scram(c, mechanism, s, initial).startswith(b"t OK")
        assert s.rounds == 15000
    with Imap(shared) as c:
        assert scram(c, mechanism, Scram("u1@example.test", "pass2", name), initial).startswith(b"t NO")
        assert scram(c, mechanism, Scram("u1@example.test", "pass1", name, authzid="bob")).startswith(b"t NO")


def test_scram_with_channel_binding(shared):
    with Imap(shared) as c:
        s = Scram("u1@example.test", "pass1", binding=end_point(c.sock))
        assert scram(c, "SCRAM-SHA-256-PLUS", s).startswith(b"t OK")
    old = client_context(shared.data / "self-made.pem")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with Imap(shared, context=old) as c:
        s = Scram("u1@example.test", "pass1", binding=end_point(c.sock))
        assert scram(c, "SCRAM-SHA-256-PLUS", s, initial=False).startswith(b"t OK")


def test_wrong_channel_binding(shared):
    with Imap(shared) as c:
        kind, data = end_point(c.sock)
        for binding in ((kind, data[::-1]), ("tls-exporter", data), ("tls-unique", data)):
            line = scram(c, "SCRAM-SHA-256-PLUS", Scram("u1@example.test", "pass1", binding=binding))
            assert line.startswith((b"t NO", b"t BAD")), (binding[0], line)


def test_binding_downgrade_is_refused(shared):
    with Imap(shared) as c:  # the client could bind and was told that we cannot
        assert not scram(c, "SCRAM-SHA-256", Scram("u1@example.test", "pass1", binding="y")).startswith(b"t OK")
        assert not scram(c, "SCRAM-SHA-256-PLUS", Scram("u1@example.test", "pass1")).startswith(b"t OK")


def test_unknown_user_is_told_nothing(shared):
    salts = []
    for user in ("nobody@example.test", "nobody@example.test", "u1@example.test"):
        with Imap(shared) as c:
            s = Scram(user, "x")
            assert scram(c, "SCRAM-SHA-256", s).startswith(b"t NO")
            salts.append((s.salt, s.rounds, len(s.salt)))
    assert salts[0] == salts[1] and salts[0][1:] == salts[2][1:]


def test_mechanisms_that_are_not_offered(shared):
    with Imap(shared) as c:
        for name in ("CRAM-MD5", "DIGEST-MD5", "ANONYMOUS", "EXTERNAL", "NTLM", "XOAUTH2"):
            assert name.encode() not in c.greeting
            assert not c.command(b"AUTHENTICATE " + name.encode()).startswith((b"t OK", b"+ "))
            if name == "DIGEST-MD5":
                break  # three errors end the connection


def test_cancelled_exchange(shared):
    with Imap(shared) as c:
        assert c.command(b"AUTHENTICATE SCRAM-SHA-256").startswith(b"+ ")
        c.send(b"*\r\n")
        assert c.line().startswith(b"t BAD")
        assert c.authenticate("PLAIN", initial=b"\0bob\0secret two").startswith(b"t OK")


# --- TLS ---

def test_starttls_injection(shared):
    with Imap(shared, "imap", tls=False) as c:
        c.send(b"a STARTTLS\r\nb LOGIN u1@example.test pass1\r\nc NOOP\r\n")
        assert c.line().startswith(b"a OK")
        try:
            c.start_tls()
        except (ssl.SSLError, ConnectionError, EOFError):
            return  # closed: as good
        c.send(b"d NOOP\r\n")
        assert c.line().startswith(b"d OK"), "plaintext was used after STARTTLS"


def test_pop3_stls(shared):
    p = poplib.POP3("127.0.0.1", shared.port["pop3"], timeout=10 * SLOW)
    assert "STLS" in p.capa() and "SASL" not in p.capa() and "USER" not in p.capa()
    with pytest.raises(poplib.error_proto):
        p.user("u1@example.test")
    p.stls(client_context(shared.data / "self-made.pem"))
    assert "PLAIN" in p.capa()["SASL"]
    p.user("u1@example.test")
    with pytest.raises(poplib.error_proto, match="AUTH"):
        p.pass_("wrong")
    p.user("u1@example.test")
    assert p.pass_("pass1").startswith(b"+OK")
    assert p.stat()[0] >= 0
    p.quit()


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_old_tls_is_refused(shared, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = getattr(ssl.TLSVersion, version)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Imap(shared, context=context)


def test_tickets_resume_in_another_process_but_not_in_another_service(shared):
    context = client_context(shared.data / "self-made.pem")
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # the session is there right after the handshake

    def connect(port, session):
        raw = socket.create_connection(("127.0.0.1", shared.port[port]), 10 * SLOW)
        s = context.wrap_socket(raw, server_hostname="localhost", session=session)
        s.recv(100)
        return s

    first = connect("imaps", None)
    second = connect("imaps", first.session)  # one session a process: this is another one
    other = connect("pop3s", first.session)
    assert not first.session_reused and second.session_reused and not other.session_reused
    for s in (first, second, other):
        s.close()


def test_alpn_of_another_protocol_is_refused(shared):
    context = client_context(shared.data / "self-made.pem")
    context.set_alpn_protocols(["http/1.1"])
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Imap(shared, context=context)
    context.set_alpn_protocols(["imap"])
    with Imap(shared, context=context) as c:
        assert c.sock.selected_alpn_protocol() == "imap"


# --- sessions ---

def test_one_process_serves_all_connections_of_a_user(shared):
    a, b, other = Imap(shared), Imap(shared), Imap(shared)
    for c in (a, b):
        assert c.command(b"LOGIN u1@example.test pass1").startswith(b"t OK")
    assert other.command(b"LOGIN bob {10}").startswith(b"+ ")
    other.send(b"secret two\r\n")
    assert other.line().startswith(b"t OK")
    pid = {}
    for user, connections in (("u1@example.test", 2), ("bob", 1)):
        lines = shared.wait_log(f"session-attached .*service=imap user={user} ")[-connections:]
        pid[user] = {re.search(r"pid=(\d+)", line)[1] for line in lines}
    assert len(pid["u1@example.test"]) == 1 and len(pid["bob"]) == 1
    assert pid["u1@example.test"] != pid["bob"]
    if os.geteuid() == 0:
        uids = {os.stat(f"/proc/{next(iter(p))}").st_uid for p in pid.values()}
        assert len(uids) == 2 and all(u >= shared.uid_base + 200 for u in uids)
    for c in (a, b, other):
        c.close()


def test_commands_behind_the_login_are_not_lost(shared):
    with Imap(shared) as c:
        c.send(b"a LOGIN u1@example.test pass1\r\nb NOOP\r\nc SELECT INBOX\r\n")
        seen = b""
        while b"c OK" not in seen and b"c NO" not in seen:
            line = c.line()
            assert line, seen
            seen += line
        assert b"a OK" in seen and b"b OK" in seen and b"c OK" in seen


def test_client_that_leaves_while_it_logs_in(shared):
    for _ in range(10):
        c = Imap(shared)
        c.send(b"a LOGIN u1@example.test pass1\r\n")
        c.sock.close()
    m = imaplib.IMAP4_SSL("127.0.0.1", shared.port["imaps"], ssl_context=client_context(shared.data / "self-made.pem"))
    assert m.login("u1@example.test", "pass1")[0] == "OK"
    m.logout()


# --- failures and limits ---

def test_failures_are_logged_at_once_and_told_late(make_instance):
    i = make_instance(main={"auth_failure_delay": "500ms"})
    with Imap(i) as c:
        began = time.monotonic()
        c.send(b"t LOGIN u1@example.test wrong\r\n")
        line = i.wait_log(r"auth-failed", seconds=0.4)[0]
        assert "client=127.0.0.1" in line and 'reason="wrong password"' in line and "user=u1@example.test" in line
        assert c.line().startswith(b"t NO [AUTHENTICATIONFAILED]")
        assert time.monotonic() - began >= 0.5
        began = time.monotonic()
        assert b" NO " in c.command(b"LOGIN u1@example.test wrong")
        assert time.monotonic() - began >= 1.0
        assert c.command(b"LOGIN u1@example.test pass1").startswith(b"t OK")
    assert "pass1" not in i.log() and "wrong password" in i.log()
    with Imap(i) as c:  # a success has ended the count
        began = time.monotonic()
        assert b" NO " in c.command(b"LOGIN u1@example.test wrong")
        assert time.monotonic() - began < 0.9 * SLOW


def test_limits_before_login(make_instance):
    i = make_instance(main={"auth_failure_delay": "0", "auth_failure_limit": "3", "login_timeout": "2s",
                            "smtpd_client_connection_count_limit": "5", "mynetworks": "192.0.2.0/24"})
    with Imap(i) as c:
        for n in range(3):
            c.send(b"t LOGIN u1@example.test wrong\r\n")
            line = c.line()
        assert b"BYE" in line + c.line() + c.line()
    began = time.monotonic()
    with Imap(i) as c:
        assert c.line().startswith(b"* BYE")
        assert 1.5 < time.monotonic() - began < 6 * SLOW
    many = [Imap(i, "imap", tls=False) for _ in range(5)]
    with socket.create_connection(("127.0.0.1", i.port["imap"]), 10) as s:
        assert s.recv(100).startswith(b"* BYE [LIMIT]")
    for c in many:
        c.close()


def test_connections_of_one_user_are_limited(make_instance):
    i = make_instance(main={"imap_session_connection_limit": "2", "auth_failure_delay": "0"})
    a, b, c = Imap(i), Imap(i), Imap(i)
    assert a.command(b"LOGIN u1@example.test pass1").startswith(b"t OK")
    assert b.command(b"LOGIN u1@example.test pass1").startswith(b"t OK")
    assert c.command(b"LOGIN u1@example.test pass1").startswith(b"t NO [LIMIT]")
    a.close()
    end = time.monotonic() + 5 * SLOW
    while not c.command(b"LOGIN u1@example.test pass1").startswith(b"t OK"):
        assert time.monotonic() < end
        time.sleep(0.1)
    b.close()
    c.close()


def test_users_change_while_the_suite_runs(make_instance):
    i = make_instance(main={"auth_failure_delay": "0"})
    i.add_user("new@example.test", "first")
    with Imap(i) as c:
        assert c.command(b"LOGIN new@example.test first").startswith(b"t OK")
    i.tool("user", "passwd", "new@example.test", input="second\n")
    with Imap(i) as c:
        assert b" NO " in c.command(b"LOGIN new@example.test first")  # not from the cache either
        assert c.command(b"LOGIN new@example.test second").startswith(b"t OK")
    i.tool("user", "change", "new@example.test", "disabled=yes")
    with Imap(i) as c:
        assert b" NO " in c.command(b"LOGIN new@example.test second")
    i.tool("user", "del", "new@example.test")
    assert i.tool("user", "check", "new@example.test", input="second\n", check=False).returncode == 1
    assert i.tool("user", "check", "u1@example.test", input="pass1\n").returncode == 0
    assert "new@example.test" not in i.tool("user", "list").stdout


def test_imported_hash(make_instance):
    i = make_instance(main={"auth_failure_delay": "0"}, start=False)
    hashed = "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1"
    i.start()
    i.tool("user", "add", "old@example.test", f"crypt={hashed}")
    with Imap(i) as c:
        assert scram(c, "SCRAM-SHA-256", Scram("old@example.test", "secret")).startswith(b"t NO")
        assert c.command(b"LOGIN old@example.test wrong").startswith(b"t NO")
        assert c.command(b"LOGIN old@example.test secret").startswith(b"t OK")
    with Imap(i) as c:  # the first right password made a verifier
        assert scram(c, "SCRAM-SHA-256", Scram("old@example.test", "secret")).startswith(b"t OK")


def test_auth_dies_while_clients_wait(make_instance):
    i = make_instance(main={"auth_failure_delay": "3s"}, allow_deaths=True)
    with Imap(i) as waiting, Imap(i) as session:
        assert session.command(b"LOGIN u1@example.test pass1").startswith(b"t OK")
        waiting.send(b"t LOGIN u1@example.test wrong\r\n")
        i.wait_log("auth-failed")
        os.kill(i.pids("auth")[0], 9)
        assert waiting.line().startswith(b"t NO [UNAVAILABLE]")
        assert session.command(b"NOOP").startswith(b"t OK")
        end = time.monotonic() + 5 * SLOW
        while not waiting.command(b"LOGIN u1@example.test pass1").startswith(b"t OK"):
            assert time.monotonic() < end
            time.sleep(0.1)


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl here")
def test_external_by_client_certificate(make_instance, tmp_path):
    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def client(name, mail, ca):
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=client",
                "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (tmp_path / f"{name}.ext").write_text(f"subjectAltName=email:{mail}\n")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial", "-days",
                "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem")

    for ca in ("ca", "stranger"):
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                f"/CN={ca}", "-keyout", f"{ca}.key", "-out", f"{ca}.pem")
    client("good", "u1@example.test", "ca")
    client("unknown", "nobody@example.test", "ca")
    client("forged", "u1@example.test", "stranger")
    i = make_instance(main={"auth_external": "yes", "smtpd_tls_CAfile": tmp_path / "ca.pem", "auth_failure_delay": "0"})

    def login(name, identity):
        context = client_context(i.data / "self-made.pem")
        if name:
            context.load_cert_chain(tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
        with Imap(i, context=context) as c:
            return c.authenticate("EXTERNAL", initial=identity).startswith(b"t OK")

    assert login("good", b"") and login("good", b"u1@example.test")
    assert not login("good", b"u2@example.test")
    assert not login("unknown", b"") and not login("forged", b"") and not login(None, b"")
    assert not login(None, b"u1@example.test") and not login("forged", b"u1@example.test")
