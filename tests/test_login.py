"""login after the login: the pump, certificates that change, deaths on either side, system users by PAM."""
import base64
import contextlib
import os
import pathlib
import poplib
import random
import re
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import threading
import time

import pytest

from instance import SLOW, wait
from scram import client_context
from test_auth import Imap

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def fetch_size(c, tag=b"f"):
    """Reads one FETCH answer with a literal; the literal's bytes."""
    line = c.line()
    size = int(re.search(rb"\{(\d+)\}", line)[1])
    data = c.file.read(size)
    while not c.line().startswith(tag + b" OK"):
        pass
    return data


def test_slow_reader_stalls_nobody(instance):
    body = b"Subject: big\r\n\r\n" + b"0123456789abcdef" * 4 * 65536 * 2  # 8 MiB
    with Imap(instance) as a, Imap(instance) as b:
        for c in (a, b):
            assert c.command(b"LOGIN u1@example.test pass1").startswith(b"t OK")
        assert a.command(b"APPEND INBOX {%d}" % len(body)).startswith(b"+ ")
        a.send(body + b"\r\n")
        assert a.line().startswith(b"t OK")
        assert b"t OK" in a.command(b"SELECT INBOX")
        a.send(b"f FETCH 1 BODY.PEEK[]\r\n")  # and does not read
        time.sleep(0.5)
        for _ in range(20):
            began = time.monotonic()
            assert b"t OK" in b.command(b"STATUS INBOX (MESSAGES)")
            assert time.monotonic() - began < 0.5 * SLOW
        if os.geteuid() == 0 and SLOW == 1:
            for pid in instance.pids("login"):
                text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
                assert int(re.search(r"Private_Dirty:\s+(\d+)", text)[1]) < 2048, "the pump holds too much"
        assert fetch_size(a) == body


SHUT_OUT = [("imap", False, b"* BYE Command is too long\r\n"), ("pop3", False, b"-ERR Line is too long\r\n"),
            ("imap", True, b"* BYE The command is too long\r\n")]


def speak_on(instance, service, logged_in):
    if logged_in:
        c = Imap(instance)
        assert c.command(b"LOGIN u1@example.test pass1").startswith(b"t OK")
        return c.sock
    s = socket.create_connection(("127.0.0.1", instance.port[service]), 60 * SLOW)
    assert s.recv(1000).startswith((b"* OK", b"+OK"))
    return s


@pytest.mark.parametrize("service,logged_in,last", SHUT_OUT)
def test_who_speaks_on_while_shut_out_reads_why(instance, service, logged_in, last):
    with speak_on(instance, service, logged_in) as s:
        s.settimeout(60 * SLOW)
        for _ in range(40):
            s.sendall(b"x" * 100000)  # none of it is answered with a reset
        text = b""
        while data := s.recv(65536):
            text += data
        assert text.endswith(last), text


@pytest.mark.parametrize("service,logged_in,last", SHUT_OUT)
def test_who_speaks_for_ever_is_cut_off(instance, service, logged_in, last):
    began, sent = time.monotonic(), 0
    with speak_on(instance, service, logged_in) as s, pytest.raises(OSError):
        while sent < 200 << 20:
            s.sendall(b"x" * 100000)
            sent += 100000
    assert time.monotonic() - began < 30 * SLOW
    instance.wait_log(f" disconnect .*service={service} .*")


@pytest.mark.skipif(os.geteuid() != 0 or SLOW > 1, reason="the memory of the release build, which only root may look at")
def test_idle_clients_cost_little(instance):
    clients = [Imap(instance) for _ in range(10)]
    for c in clients:
        assert c.command(b"LOGIN u1@example.test pass1").startswith(b"t OK")
    time.sleep(0.3)
    sizes = []
    for pid in instance.pids("login"):
        text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
        sizes.append(int(re.search(r"Private_Dirty:\s+(\d+)", text)[1]))
    print("private KiB of login processes:", sizes)
    assert sorted(sizes)[len(sizes) // 2] < 700, sizes
    for c in clients:
        c.close()


def test_mail_in_a_file_is_no_mystery(instance):
    """IMAP and POP3 serve Maildirs; whose mail is an mbox reads why, and so does the log."""
    instance.tool("user", "add", "m1@example.test", f"mailbox=mbox:{instance.mail}/box", input="pass\n")
    with Imap(instance) as c:
        said = c.command(b"LOGIN m1@example.test pass")
        assert said.startswith(b"t NO [CONTACTADMIN] ") and b"home_mailbox = Maildir/" in said
        assert c.command(b"LOGIN u1@example.test pass1").startswith(b"t OK")  # the connection goes on
    p = poplib.POP3_SSL("localhost", instance.port["pop3s"], context=instance.tls(), timeout=60)
    p.user("m1@example.test")
    with pytest.raises(poplib.error_proto, match="SYS/PERM.*home_mailbox = Maildir/"):
        p.pass_("pass")
    p.close()
    assert instance.wait_log("session-refused .*m1?.*home_mailbox = Maildir/", count=2)


def peer_certificate(i, port="imaps"):
    with Imap(i, port) as c:
        return c.sock.getpeercert(True)


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl here")
def test_certificate_is_replaced_without_a_restart(make_instance, tmp_path):
    pem = tmp_path / "server.pem"

    def make(name):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                        "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},DNS:localhost", "-keyout", "key",
                        "-out", "cert"], cwd=tmp_path, check=True, stderr=subprocess.DEVNULL)
        pem.write_text((tmp_path / "key").read_text() + (tmp_path / "cert").read_text())
        pem.chmod(0o600)

    make("one.test")
    i = make_instance(main={"smtpd_tls_chain_files": pem, "login_sessions_per_process": "10"}, start=False)
    i.data.mkdir(exist_ok=True)
    (i.data / "self-made.pem").write_text((tmp_path / "cert").read_text())
    i.start()
    first = peer_certificate(i)
    login = set(i.pids("login"))
    with Imap(i) as c:
        assert c.command(b"LOGIN u1@example.test pass1").startswith(b"t OK")
        make("two.test")
        (i.data / "self-made.pem").write_text((tmp_path / "cert").read_text())
        i.reload()
        end = time.monotonic() + 5 * SLOW
        second = first
        while second == first:
            assert time.monotonic() < end, "the old certificate is still served"
            try:
                second = peer_certificate(i)
            except OSError:  # the old one, which this client does not trust any more
                time.sleep(0.05)
        assert c.command(b"NOOP").startswith(b"t OK")
        pem.write_text("rubbish")
        i.tool("reload", check=False)
        time.sleep(0.3)
        assert peer_certificate(i) == second
        assert c.command(b"NOOP").startswith(b"t OK")
    assert login & set(i.pids("login"))


def session_pids(i, user):
    return [int(re.search(r"pid=(\d+)", line)[1]) for line in i.log().splitlines()
            if "session-attached" in line and f"user={user}" in line]


def test_a_crash_of_one_session_spares_the_others(make_instance):
    i = make_instance(users={"u1@example.test": "pass1", "u2@example.test": "pass2"}, allow_deaths=True)
    with Imap(i) as a, Imap(i) as b:
        assert a.command(b"LOGIN u1@example.test pass1").startswith(b"t OK")
        assert b.command(b"LOGIN u2@example.test pass2").startswith(b"t OK")
        i.wait_log("session-attached .*user=u2@example.test")
        i.faults = True
        os.kill(session_pids(i, "u1@example.test")[-1], signal.SIGSEGV)
        assert a.line().startswith(b"* BYE")
        assert a.line() == b""
        assert b.command(b"NOOP").startswith(b"t OK")
        end = time.monotonic() + 5 * SLOW
        while True:  # and logs in again
            with Imap(i) as c:
                if c.command(b"LOGIN u1@example.test pass1").startswith(b"t OK"):
                    break
            assert time.monotonic() < end
            time.sleep(0.05)
        assert b.command(b"NOOP").startswith(b"t OK")


def test_a_crash_of_one_login_process_spares_the_others(make_instance):
    i = make_instance(allow_deaths=True)
    before = set(i.pids("login"))
    with Imap(i) as a:
        assert a.command(b"LOGIN u1@example.test pass1").startswith(b"t OK")
        mine = set(i.pids("login")) - before
        with Imap(i) as b:
            assert b.command(b"LOGIN u1@example.test pass1").startswith(b"t OK")
            other = set(i.pids("login")) - before - mine
            assert len(other) == 1
            i.faults = True
            os.kill(other.pop(), signal.SIGSEGV)
            assert b.line() == b""
        assert a.command(b"NOOP").startswith(b"t OK")
        end = time.monotonic() + 5 * SLOW
        while True:
            try:
                with Imap(i) as c:
                    assert c.command(b"LOGIN u1@example.test pass1").startswith(b"t OK")
                    break
            except (OSError, EOFError, AssertionError):
                assert time.monotonic() < end
                time.sleep(0.05)
        assert a.command(b"NOOP").startswith(b"t OK")


def test_broker_dies(make_instance):
    i = make_instance(allow_deaths=True)
    with Imap(i) as a, Imap(i) as b:
        assert a.command(b"LOGIN u1@example.test pass1").startswith(b"t OK")
        os.kill(i.pids("broker")[0], signal.SIGKILL)
        assert a.command(b"NOOP").startswith(b"t OK")
        end = time.monotonic() + 5 * SLOW
        while not b.command(b"LOGIN u1@example.test pass1").startswith(b"t OK"):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert a.command(b"NOOP").startswith(b"t OK")


@contextlib.contextmanager
def pam_instance(make_instance, tmp_path, check):
    """Logs system users in; PAM's rules are a script, whose lines check end with the verdict on $PAM_USER and $password."""
    script, rules = tmp_path / "check", pathlib.Path(f"/etc/pam.d/bulkhead-test-{os.getpid()}")
    script.write_text('#!/bin/sh\npassword=$(tr -d "\\0")\n' + check)
    script.chmod(0o755)
    rules.write_text(f"auth sufficient pam_exec.so quiet expose_authtok {script}\nauth required pam_deny.so\n"
                     "account required pam_permit.so\n")
    try:
        i = make_instance(main={"auth_system_users": "yes", "auth_pam_service": rules.name, "auth_failure_delay": "0"},
                          start=False)
        i.services = i.front_ends() + ["pam unix n n n - 1 pam"]
        i.write()
        i.start()
        yield i
    finally:
        rules.unlink()


def submission(i):
    s = smtplib.SMTP("127.0.0.1", i.port["submission"], timeout=20 * SLOW)
    context = i.tls()
    context.check_hostname = False
    s.starttls(context=context)
    s.ehlo()
    return s


@root_only
def test_system_user_by_pam(make_instance, tmp_path):
    """As nobody: PAM's rules know one password."""
    with pam_instance(make_instance, tmp_path, '[ "$PAM_USER" = nobody ] && [ "$password" = "the pass word" ]\n') as i:
        for user, password, ok in (("nobody", "the pass word", True), ("nobody", "wrong", False), ("root", "the pass word", False),
                                   ("nobody", "pass1", False), ("u1@example.test", "pass1", True)):
            s = submission(i)
            if ok:
                s.login(user, password)
            else:
                with pytest.raises(smtplib.SMTPAuthenticationError):
                    s.login(user, password)
            s.close()
        assert i.wait_log("auth-ok .*user=nobody") and i.wait_log('auth-failed .*user=nobody .*PAM refuses')
        assert "the pass word" not in i.log()


@root_only
def test_pam_answers_only_the_auth_that_asked(make_instance, tmp_path):
    """auth is started anew while PAM thinks about a right password: the yes must not reach whom the new one asks about."""
    check = (f'touch {tmp_path}/asked-$password\nwhile ! [ -e {tmp_path}/go-$password ]; do sleep 0.02; done\n'
             f'touch {tmp_path}/said-$password\n[ "$password" = right ]\n')
    with pam_instance(make_instance, tmp_path, check) as i:
        i.allow_deaths = True
        sessions = []
        for password in ("right", "wrong"):
            s = submission(i)
            s.putcmd("AUTH", "PLAIN " + base64.b64encode(f"\0nobody\0{password}".encode()).decode())
            wait((tmp_path / f"asked-{password}").exists, 30, "the question")
            sessions.append(s)
            if password == "right":
                (old,) = i.pids("auth")
                os.kill(old, signal.SIGKILL)
                wait(lambda: i.pids("auth") not in ([], [old]) and
                     re.search(r"^auth +auth +\d+ ready", i.tool("status").stdout, re.M), 30, "another auth")
        (tmp_path / "go-right").touch()
        wait((tmp_path / "said-right").exists, 30, "the verdict")
        wait(lambda: "checks=1 " in i.tool("status").stdout, 30, "the end of one check")  # its yes is out, or dropped
        (tmp_path / "go-wrong").touch()
        assert sessions[0].getreply()[0] == 454
        assert sessions[1].getreply()[0] == 535
        assert "auth-ok" not in i.log()


def test_stop_says_goodbye_and_does_not_wait(make_instance):
    i = make_instance()
    with Imap(i) as a, Imap(i) as b, Imap(i) as idle:
        for c in (a, idle):
            assert c.command(b"LOGIN u1@example.test pass1").startswith(b"t OK")
        assert idle.command(b"SELECT INBOX").endswith(b"\r\n")
        assert idle.command(b"IDLE").startswith(b"+ ")
        began = time.monotonic()
        i.stop()
        assert time.monotonic() - began < 5 * SLOW
        for c in (a, b, idle):
            assert c.line().startswith(b"* BYE")
            assert c.line() == b""


def test_tls_parameters_change_at_reload(make_instance):
    i = make_instance()
    with Imap(i) as c:
        assert c.sock.version() == "TLSv1.3"
    old = client_context(i.data / "self-made.pem")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with Imap(i, context=old) as c:
        assert c.sock.version() == "TLSv1.2"
    i.set(tls_minimum_version="tls1.3")
    i.reload()
    end = time.monotonic() + 5 * SLOW
    while True:
        try:
            Imap(i, context=old).close()
        except (ssl.SSLError, ConnectionError):
            break
        assert time.monotonic() < end, "TLS 1.2 is still spoken"
        time.sleep(0.05)
    with Imap(i) as c:
        assert c.command(b"LOGIN u1@example.test pass1").startswith(b"t OK")


def test_many_connections_in_a_row(instance):
    for _ in range(100):
        with socket.create_connection(("127.0.0.1", instance.port["imap"]), 10 * SLOW) as s:
            assert s.recv(200).startswith(b"* OK")
    with Imap(instance) as c:
        assert c.command(b"LOGIN u1@example.test pass1").startswith(b"t OK")
    end = time.monotonic() + 5 * SLOW
    while len(instance.pids("login")) > 5:
        assert time.monotonic() < end, instance.pids("login")
        time.sleep(0.1)


def test_many_clients_in_one_process(make_instance):
    """A hundred clients of three users share a process: logins, mail both ways, sudden ends, wrong passwords."""
    users = {f"u{n}@example.test": f"pass{n}" for n in range(3)}
    i = make_instance(users=users, main={"login_sessions_per_process": "100", "auth_failure_delay": "200ms"})
    body = b"Subject: s\r\n\r\n" + b"x" * 100000
    errors = []

    def client(n):
        rnd = random.Random(n)
        user, password = f"u{n % 3}@example.test", f"pass{n % 3}"
        try:
            for _ in range(3):
                c = Imap(i, "imap", tls=False) if rnd.random() < 0.3 else Imap(i)
                if not isinstance(c.sock, ssl.SSLSocket):
                    assert c.command(b"STARTTLS").startswith(b"t OK")
                    c.start_tls()
                if rnd.random() < 0.2:
                    assert c.command(f"LOGIN {user} wrong".encode()).startswith(b"t NO")
                if rnd.random() < 0.1:
                    c.sock.close()  # with a login under way or not
                    continue
                assert c.command(f"LOGIN {user} {password}".encode()).startswith(b"t OK")
                if rnd.random() < 0.5:
                    assert c.command(b"APPEND INBOX {%d}" % len(body)).startswith(b"+ ")
                    c.send(body + b"\r\n")
                    assert c.line().startswith(b"t OK")
                assert b"t OK" in c.command(b"SELECT INBOX")
                if rnd.random() < 0.2:
                    c.send(b"f FETCH 1:* BODY.PEEK[]\r\n")
                    c.line()
                    c.sock.close()
                    continue
                assert c.command(b"LOGOUT").startswith(b"* BYE")
                c.close()
        except Exception as e:  # noqa: BLE001
            errors.append(f"client {n}: {e!r}")

    threads = [threading.Thread(target=client, args=(n,)) for n in range(60)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors[:5]
    assert len(i.pids("login")) <= 4 + 2 * (os.cpu_count() or 1) + 2
    with Imap(i) as c:
        assert c.command(b"LOGIN u1@example.test pass1").startswith(b"t OK")
