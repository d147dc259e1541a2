"""POP3 end to end: real clients against a running instance, TLS and STLS, what QUIT leaves, hostile lines."""
import itertools
import os
import poplib
import re
import shutil
import smtplib
import socket
import subprocess
import time

import pytest

from instance import SLOW

USER, PASSWORD = "u1@example.test", "pass1"
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    from instance import Instance
    with Instance(tmp_path_factory.mktemp("pop3") / "i", users={USER: PASSWORD, "u2@example.test": "pass2"}) as i:
        yield i


def deliver(i, *texts, user=USER, password=PASSWORD):
    """Puts messages into the Maildir as a foreign program does: with LF or CRLF, in new/."""
    maildir = i.home(user) / "Maildir"
    if not (maildir / "new").exists():
        pop(i, user, password).quit()  # the first login makes it
    owner = (maildir / "new").stat()
    for text in texts:
        name = f"{time.time():.0f}.N{next(numbers)}.test"
        (maildir / "tmp" / name).write_bytes(text)
        os.chown(maildir / "tmp" / name, owner.st_uid, owner.st_gid)
        os.rename(maildir / "tmp" / name, maildir / "new" / name)


def message(subject, body="hello\r\n"):
    return f"From: a@example.org\r\nTo: {USER}\r\nSubject: {subject}\r\n\r\n{body}".encode()


def pop(i, user=USER, password=PASSWORD):
    p = poplib.POP3_SSL("localhost", i.port["pop3s"], timeout=20 * SLOW, context=i.tls())
    p.user(user)
    p.pass_(password)
    return p


def empty(i, user=USER, password=PASSWORD):
    p = pop(i, user, password)
    for n in range(1, p.stat()[0] + 1):
        p.dele(n)
    p.quit()


@pytest.fixture
def box(running):
    empty(running)
    return running


def test_a_session_with_poplib(box):
    deliver(box, message("one"), message("two", "a\r\n.\r\n..dots\r\nend\r\n"))
    p = pop(box)
    count, size = p.stat()
    assert count == 2
    listing = [line.split() for line in p.list()[1]]
    assert sum(int(n) for _, n in listing) == size
    assert [len(line) for line in p.uidl()[1]] == [18, 18]
    assert b"Subject: one" in p.top(1, 0)[1] and b"hello" not in p.top(1, 0)[1]
    _, lines, octets = p.retr(2)
    assert lines[-4:] == [b"a", b".", b"..dots", b"end"]
    assert octets >= int(listing[1][1])
    assert "STLS" not in p.capa() and "UIDL" in p.capa()
    p.dele(1)
    assert p.stat()[0] == 1
    p.rset()
    assert p.stat()[0] == 2
    p.dele(1)
    p.quit()
    p = pop(box)
    assert p.stat()[0] == 1
    p.dele(1)
    p.close()  # without QUIT: nothing is removed
    time.sleep(0.2)
    assert len(box.messages(USER)) == 1
    cur = box.home(USER) / "Maildir" / "cur"
    assert [f.name.endswith(":2,S") for f in cur.iterdir()] == [True]  # it was retrieved


def test_uids_stay(box):
    deliver(box, message("keep"), message("go"))
    p = pop(box)
    ids = [line.split()[1] for line in p.uidl()[1]]
    p.dele(2)
    p.quit()
    deliver(box, message("new"))
    p = pop(box)
    again = [line.split()[1] for line in p.uidl()[1]]
    assert again[0] == ids[0] and again[1] not in ids
    p.quit()
    maildir = box.home(USER) / "Maildir"
    shutil.rmtree(maildir / "bh-index")  # only a cache
    p = pop(box)
    assert [line.split()[1] for line in p.uidl()[1]] == again
    p.quit()


def test_what_was_sent_comes_back(box):
    body = "".join(f"{n}: {'x' * (n % 90)}\r\n" + (".\r\n" if n % 7 == 0 else "") for n in range(20000))
    sent = message("long", body)
    deliver(box, sent)
    p = pop(box)
    lines = p.retr(1)[1]
    got = b"\r\n".join(lines) + b"\r\n"
    assert got == sent
    assert len(got) == int(p.list(1).split()[2])
    p.quit()


def test_from_smtp_to_pop3(box):
    sent = message("by smtp", "a\r\n.\r\n..b\r\n")
    with smtplib.SMTP("127.0.0.1", box.port["smtp"], timeout=20 * SLOW) as s:
        s.sendmail("sender@example.org", [USER], sent)
    box.wait_messages(USER)
    p = pop(box)
    lines = p.retr(1)[1]
    assert (b"\r\n".join(lines) + b"\r\n").endswith(sent)
    assert len(b"\r\n".join(lines)) + 2 == int(p.list(1).split()[2])
    p.quit()


def test_stls_and_passwords(box):
    plain = poplib.POP3("localhost", box.port["pop3"], timeout=20)
    capa = plain.capa()
    assert "STLS" in capa and "USER" not in capa and "SASL" not in capa
    with pytest.raises(poplib.error_proto, match="AUTH"):
        plain.user(USER)
    plain.stls(box.tls())
    assert "USER" in plain.capa()
    plain.user(USER)
    with pytest.raises(poplib.error_proto, match=r"\[AUTH\]"):
        plain.pass_("wrong")
    plain.user(USER)
    assert plain.pass_(PASSWORD).startswith(b"+OK")
    plain.quit()


def raw(i, *pieces, pause=0.0):
    """Sends the pieces to the POP3S port and gives everything that comes back until the end."""
    s = i.tls().wrap_socket(socket.create_connection(("127.0.0.1", i.port["pop3s"]), 20 * SLOW),
                            server_hostname="localhost")
    out = b""
    try:
        for piece in pieces:
            s.sendall(piece)
            time.sleep(pause)
        while chunk := s.recv(65536):
            out += chunk
    except OSError:
        pass
    s.close()
    return out


LOGIN = f"USER {USER}\r\nPASS {PASSWORD}\r\n".encode()


def test_everything_in_one_piece(box):
    deliver(box, message("pipelined"))
    out = raw(box, LOGIN + b"STAT\r\nLIST\r\nUIDL\r\nRETR 1\r\nDELE 1\r\nNOOP\r\nQUIT\r\n")
    assert out.count(b"+OK") == 10, out
    assert box.messages(USER) == []


def test_byte_by_byte(box):
    deliver(box, message("slow"))
    out = raw(box, *[bytes([c]) for c in LOGIN + b"RETR 1\r\nQUIT\r\n"])
    assert b"Subject: slow\r\n" in out and out.endswith(b"\r\n.\r\n+OK Good bye\r\n")


@pytest.mark.parametrize("line", [b"x" * 300, b"RETR " + b"9" * 300], ids=["word", "number"])
def test_long_lines_end_the_session(box, line):
    out = raw(box, LOGIN + line + b"\r\nNOOP\r\n")
    assert out.endswith(b"-ERR Line is too long\r\n")


def test_bad_commands(box):
    out = raw(box, LOGIN + b"FOO\r\n" * 30)
    assert out.endswith(b"-ERR Too many bad commands\r\n")
    assert out.count(b"-ERR") == 21


def test_two_sessions_at_once(box):
    """The maildrop is not locked: each sees what was there when it began, and both may delete the same message."""
    deliver(box, *(message(str(n)) for n in range(1, 5)))
    a, b = pop(box), pop(box)
    ids = b.uidl()[1]
    assert a.uidl()[1] == ids
    a.dele(1), a.dele(2)
    b.dele(2), b.dele(3)
    assert a.stat()[0] == b.stat()[0] == 2 and b"Subject: 2" not in b.top(4, 0)[1]
    assert a.quit().startswith(b"+OK")
    deliver(box, message("5"))
    b.rset()
    assert b.stat()[0] == 4  # its numbers stand
    assert b.uidl()[1] == ids and len(b.list()[1]) == 4
    for n in (1, 2):
        with pytest.raises(poplib.error_proto, match="gone"):
            b.retr(n)
        with pytest.raises(poplib.error_proto, match="gone"):
            b.top(n, 0)
    assert b"Subject: 4" in b.retr(4)[1]
    b.dele(2), b.dele(3)
    assert b.quit().startswith(b"+OK")
    left = pop(box)
    assert left.uidl()[1][0].split()[1] == ids[3].split()[1]
    assert [b"Subject: %d" % s in left.retr(n)[1] for n, s in ((1, 4), (2, 5))] == [True, True]
    left.quit()


def test_wrong_user_sees_nothing_of_others(box):
    deliver(box, message("mine"))
    p = pop(box, "u2@example.test", "pass2")
    assert p.stat()[0] == 0
    p.quit()


needs = lambda program: pytest.mark.skipif(not shutil.which(program), reason=f"{program} is not installed")  # noqa: E731


@needs("curl")
def test_curl(box):
    deliver(box, message("by curl"))
    base = ["curl", "-sS", "--cacert", box.data / "self-made.pem", "--user", f"{USER}:{PASSWORD}"]
    url = f"pop3s://localhost:{box.port['pop3s']}/"
    done = subprocess.run(base + [url], capture_output=True, text=True, timeout=30 * SLOW, check=True)
    assert re.match(r"1 \d+", done.stdout)
    done = subprocess.run(base + [url + "1"], capture_output=True, text=True, timeout=30 * SLOW, check=True)
    assert "Subject: by curl" in done.stdout
    stls = ["curl", "-sS", "--ssl-reqd", "--cacert", box.data / "self-made.pem", "--user", f"{USER}:{PASSWORD}",
            f"pop3://localhost:{box.port['pop3']}/1"]
    done = subprocess.run(stls, capture_output=True, text=True, timeout=30 * SLOW, check=True)
    assert "Subject: by curl" in done.stdout


@needs("fetchmail")
def test_fetchmail(box, tmp_path):
    deliver(box, message("fetch 1"), message("fetch 2"))
    rc = tmp_path / "fetchmailrc"
    rc.write_text(f"""
poll localhost service {box.port['pop3s']} protocol pop3 timeout 30 uidl
  user "{USER}" password "{PASSWORD}" ssl sslcertfile {box.data}/self-made.pem sslcertck keep
  mda "cat >> {tmp_path}/got; echo >> {tmp_path}/got"
""")
    rc.chmod(0o600)
    env = {**os.environ, "HOME": str(tmp_path), "FETCHMAILHOME": str(tmp_path)}
    for expected in (0, 1):  # 1: no new mail, by its UIDs
        done = subprocess.run(["fetchmail", "-f", rc, "--pidfile", tmp_path / "pid"], env=env, capture_output=True, text=True,
                              timeout=60 * SLOW, check=False)
        assert done.returncode == expected, done.stdout + done.stderr
    got = (tmp_path / "got").read_text()
    assert got.count("Subject: fetch") == 2


@needs("getmail")
def test_getmail(box, tmp_path):
    deliver(box, message("get 1"), message("get 2"))
    for d in ("M", "M/cur", "M/new", "M/tmp"):
        (tmp_path / d).mkdir()
    user = ""
    if os.geteuid() == 0:  # getmail delivers nothing as root
        user = "user = nobody"
        tmp_path.chmod(0o711)
        for d in ("M", "M/cur", "M/new", "M/tmp"):
            shutil.chown(tmp_path / d, "nobody")
    (tmp_path / "getmailrc").write_text(f"""[retriever]
type = SimplePOP3SSLRetriever
server = localhost
port = {box.port['pop3s']}
username = {USER}
password = {PASSWORD}
ca_certs = {box.data}/self-made.pem
[destination]
type = Maildir
path = {tmp_path}/M/
{user}
[options]
delete = true
""")
    done = subprocess.run(["getmail", f"--getmaildir={tmp_path}", "--rcfile=getmailrc"], capture_output=True, text=True,
                          timeout=60 * SLOW, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "M/new").iterdir())) == 2, done.stdout + done.stderr
    assert box.messages(USER) == []


def test_a_session_outlives_its_broker_and_zygote(make_instance):
    i = make_instance(allow_deaths=True)
    deliver(i, message("stays"))
    p = pop(i)
    for program in ("broker", "pop3d"):
        pids = i.pids(program)
        os.kill(min(pids), 9)
    assert b"Subject: stays" in p.retr(1)[1]
    p.dele(1)
    p.quit()
    assert i.messages(USER) == []


def test_idle_time_out(make_instance):
    i = make_instance(main={"pop3_idle_timeout": "60s"})
    p = pop(i)
    assert p.noop().startswith(b"+OK")
    p.quit()
    i.wait_log("pop3-session-end")


def test_process_ends_with_its_session(running):
    before = set(running.pids("pop3d"))
    p = pop(running)
    assert len(set(running.pids("pop3d")) - before) == 1
    p.quit()
    end = time.monotonic() + 5 * SLOW
    while set(running.pids("pop3d")) - before and time.monotonic() < end:
        time.sleep(0.05)
    assert not set(running.pids("pop3d")) - before
