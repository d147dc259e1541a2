"""What goes wrong in a day, and what an admin then reads: each place (log, `bulkhead status`, `queue`, `trace`, `check`)
names the thing, the reason and what to do. One row or function for each trouble; those that can share an instance do."""
import os
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import time

import pytest

from instance import BIN, SLOW, Instance
from sink import Sink
from test_check import certificate
from test_local import DOMAIN, root_only, users  # noqa: F401  (a fixture)

PATIENT = {"direct_delivery_deadline": "10s", "minimal_backoff_time": "1h", "auth_failure_delay": "0"}


def send(i, to, body="Subject: t\r\n\r\nhello\r\n", sender="u1@example.test", options=()):
    """The last reply: (code, text)."""
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=60 * SLOW) as s:
        s.ehlo("client.test")
        for step in (lambda: s.mail(sender, list(options)), lambda: s.rcpt(to), lambda: s.data(body)):
            code, text = step()
            if code != 250:
                break
        return code, text.decode()


def told(text, *patterns):
    missing = [p for p in patterns if not re.search(p, text, re.S)]
    assert not missing, f"{missing} not in:\n{text}"


def attempt(i, to, status):
    """The log line of the last attempt for a recipient, and its queue id."""
    line = i.wait_log(rf" delivery .*to=<{re.escape(to)}> .*status={status}", 30)[-1]
    return line, re.search(r"qid=(\w+)", line)[1]


def deferred(i, to, thing, reason, remedy):
    """A message that waits: log, queue list, queue show and trace say all three."""
    line, qid = attempt(i, to, "deferred")
    told(line, thing, reason, remedy)
    entry = re.search(rf"^{qid} .*?(?=^\w|\Z)", i.tool("queue", "list").stdout, re.M | re.S)[0]
    told(entry, thing, reason, remedy)
    told(i.tool("queue", "show", qid).stdout, thing, reason, remedy)
    told(i.tool("trace", qid).stdout, thing, reason, remedy, "in the queue now")


def bounced(i, to, thing, reason, remedy):
    """A message that failed for good: log and trace say all three, the queue has it no more."""
    line, qid = attempt(i, to, "bounced")
    told(line, thing, reason, remedy)
    told(i.tool("trace", qid).stdout, thing, reason, remedy)


def qmgr(i):
    return next(x for x in i.tool("status").stdout.splitlines() if x.startswith("qmgr["))


def wait_for(what, look, seconds=30):
    end = time.monotonic() + seconds * SLOW
    while not look():
        assert time.monotonic() < end, what
        time.sleep(0.03)


# --- deliveries here ---

@root_only
def test_local_deliveries(users, make_instance):  # noqa: F811
    full, homeless, locked, looping = (users.add() for _ in range(4))
    i = make_instance(main={**PATIENT, "mydestination": f"{DOMAIN}, localhost", "myorigin": DOMAIN, "home_mailbox": "Maildir/",
                            "mailbox_size_limit": "2000", "command_time_limit": "1s", "message_size_limit": "100K"},
                      aliases='broken: "|/nowhere/program x"\nslow: "|/bin/sleep 30"\nroot: u1@example.test\n')
    # full mailbox
    code, text = send(i, f"{full}@{DOMAIN}", "Subject: x\r\n\r\n" + ("z" * 70 + "\r\n") * 60)
    assert code == 550 and text == f"5.2.2 the mailbox of {full} is full: its quota is used up"
    bounced(i, f"{full}@{DOMAIN}", f"the mailbox of {full}", "its quota is used up", "let the user delete mail, or raise mailbox_size_limit")
    # home missing
    shutil.rmtree(users.homes[homeless])
    send(i, f"{homeless}@{DOMAIN}")
    deferred(i, f"{homeless}@{DOMAIN}", f"cannot enter {users.homes[homeless]}", "No such file or directory",
             r"make this directory, owned by uid \d+")
    # Maildir not writable
    send(i, f"{locked}@{DOMAIN}")
    attempt(i, f"{locked}@{DOMAIN}", "sent")
    for folder in ("tmp", "new"):
        os.chown(users.homes[locked] / "Maildir" / folder, 0, 0)
        os.chmod(users.homes[locked] / "Maildir" / folder, 0o700)
    send(i, f"{locked}@{DOMAIN}")
    deferred(i, f"{locked}@{DOMAIN}", f"maildir {users.homes[locked]}/Maildir", "Permission denied", "give it to its user")
    # .forward that leads back, and a message that has been here
    users.write(looping, ".forward", f"{looping}+again@{DOMAIN}\n")
    code, text = send(i, f"{looping}@{DOMAIN}", f"Subject: x\r\nDelivered-To: {looping}@{DOMAIN}\r\n\r\nbody\r\n")
    assert code == 550 and text == f"5.4.6 mail forwarding loop for {looping}@{DOMAIN}"
    bounced(i, f"{looping}@{DOMAIN}", f"{looping}@{DOMAIN}", "mail forwarding loop", "look for aliases, .forward files or MX records")
    # alias to a program that is not there, and one that hangs
    send(i, f"broken@{DOMAIN}")
    deferred(i, f"broken@{DOMAIN}", "/nowhere/program", "the program cannot be run", "install it, or correct the alias or .forward")
    send(i, f"slow@{DOMAIN}")
    bounced(i, f"slow@{DOMAIN}", "/bin/sleep", "ran longer than command_time_limit", "raise it, or mend the program")
    # a user below first_valid_uid
    send(i, f"daemon@{DOMAIN}")
    deferred(i, f"daemon@{DOMAIN}", "uid 1 of daemon", "outside of first_valid_uid", r'add the line \S*daemon: NAME')
    # refusals: the session's line has thing and reason, its code explains the rest
    for to, body, options, thing, reason, code, remedy in (
            (f"nobody-here@{DOMAIN}", "x", (), f"<nobody-here@{DOMAIN}>", "User unknown in local recipient table", "5.1.1", "add the user"),
            ("nobody@example.test", "x", (), "<nobody@example.test>", "User unknown in virtual mailbox table", "5.1.1", "bulkhead user add"),
            ("u1@example.test", "x", ["SIZE=200000"], "from=", "Message size exceeds fixed limit", "5.3.4", "raise message_size_limit"),
            ("u1@example.test", "Received: x\r\n" * 120, (), "from=u1@example.test", "too many hops", "5.4.6", "lead back here")):
        assert send(i, to, body, options=options)[0] // 100 == 5
        told(i.wait_log(f"smtp-refused .*enhanced={code} .*{re.escape(reason)}", 30)[-1], re.escape(thing), "client=")
        told(i.tool("log", "--explain", code).stdout, remedy)
    counters = qmgr(i)
    told(counters, r"deferrals=[4-9]", r"bounces=[3-9]", r"messages=[4-9]", r"reasons=[4-9]")


# --- the way out ---

@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cert")
    certificate(folder, "old.pem", "k.pem", -1)
    return folder / "old.pem", folder / "k.pem"


LONG_REPLY = ("550-5.7.1 Your message was refused by the policy of this site because the address that you send from is on a",
              "550-5.7.1 list of senders that our users have complained about; see https://postmaster.far.test/why?ip=192.0.2.1",
              "550 5.7.1 and ask postmaster@far.test to be taken off that list with the code ABC-1234-XYZ")


def test_the_way_out(make_instance):
    i = make_instance(start=False, main=PATIENT)
    hop, place = f"[127.0.0.1]:{i.port['sink']}", rf"127\.0\.0\.1\[127\.0\.0\.1\]:{i.port['sink']}"
    i.set(relayhost=hop)
    i.start()
    # the next hop puts it off, or refuses with a long reply
    with Sink(i.port["sink"], replies={"RCPT": "450 4.2.0 Greylisted, try again in 300 seconds"}):
        send(i, "grey@far.test")
        deferred(i, "grey@far.test", "grey@far.test|far.test|127.0.0.1", "Greylisted, try again in 300 seconds", "tried again by itself")
    with Sink(i.port["sink"], replies={"RCPT": LONG_REPLY}):
        code, text = send(i, "no@far.test")
        assert code == 550 and "code ABC-1234-XYZ" in text
        bounced(i, "no@far.test", "no@far.test", "complained about; .* with the code ABC-1234-XYZ", "ask its postmaster")
    # nobody listens
    send(i, "dead@far.test")
    deferred(i, "dead@far.test", place, "Connection refused", "see whether the host is up and lets this machine reach the port")


def test_a_next_hop_without_tls(make_instance):
    i = make_instance(start=False, main=PATIENT)
    i.set(relayhost=f"[127.0.0.1]:{i.port['sink']}", smtp_tls_security_level="encrypt")
    i.start()
    with Sink(i.port["sink"]):
        send(i, "notls@far.test")
        deferred(i, "notls@far.test", "127.0.0.1", "TLS is required, and .* does not offer it", "ask for TLS there, or allow plaintext")


def test_a_next_hop_with_an_expired_certificate(make_instance, certificates):
    i = make_instance(start=False, main=PATIENT)
    hop = f"[127.0.0.1]:{i.port['sink']}"
    i.set(relayhost=hop, smtp_tls_policy_maps=f"inline:{{ {{{hop} = verify match=x}} }}", smtp_tls_CAfile=certificates[0])
    i.start()
    with Sink(i.port["sink"], tls=certificates, features=("STARTTLS",)):
        send(i, "expired@far.test")
        deferred(i, "expired@far.test", "TLS with 127.0.0.1", "certificate has expired", "mend the certificate there")
    told(i.wait_log("smtp-tls-failed", 30)[-1], "remote=127.0.0.1", "reason=.*certificate", "remedy=.*smtp_tls_policy_maps")


def test_a_next_hop_that_refuses_our_password(make_instance, certificates):
    i = make_instance(start=False, main=PATIENT)
    hop = f"[127.0.0.1]:{i.port['sink']}"
    (i.etc / "passwords").write_text(f"{hop} user:wrong\n")
    (i.etc / "passwords").chmod(0o600)
    i.set(relayhost=hop, smtp_sasl_password_maps=f"texthash:{i.etc}/passwords", smtp_sasl_auth_enable="yes",
          smtp_tls_security_level="encrypt")
    i.start()
    with Sink(i.port["sink"], tls=certificates, features=("STARTTLS", "AUTH PLAIN"), replies={"AUTH": "535 5.7.8 wrong"}):
        send(i, "pw@far.test")
        deferred(i, "pw@far.test", "no login at 127.0.0.1", "the server says: wrong", "correct user and password in smtp_sasl_password_maps")
    told(i.wait_log("smtp-auth-failed", 30)[-1], "remote=127.0.0.1", "reason=.*the server says: wrong", "remedy=.*smtp_sasl_password_maps")
    assert "table-open" not in i.log() and "table-refresh" not in i.log()  # auth alone reads that table


@pytest.mark.parametrize("silent", [False, True])
def test_dns_is_down(make_instance, silent):
    """Nobody at the resolver's port, and one that never answers."""
    i = make_instance(start=False, main=PATIENT)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        if silent:
            s.bind(("127.0.0.1", i.port["dns"]))
        i.start()
        send(i, "x@far.test", sender="")
        deferred(i, "x@far.test", "far.test", "no answer from DNS", "see whether the resolver answers .*dns_resolvers names others")
        told(i.wait_log("warning: dns-failure name=far.test", 30)[-1], f"resolvers=.*{i.port['dns']}",
             "reason=.*(Timeout|contact)", "remedy=.*dns_resolvers names others")
        told(next(x for x in i.tool("status").stdout.splitlines() if x.startswith("dns[")), r"failed=[1-9]")


def test_a_destination_that_does_not_answer_is_left_alone(make_instance):
    """A queue that grows: each message tells why it waits, and the list can be had by reason."""
    i = make_instance(start=False, main={**PATIENT, "direct_delivery": "no"})
    i.set(relayhost=f"[127.0.0.1]:{i.port['sink']}")
    i.start()
    for n in range(6):
        send(i, f"r{n}@far.test")
    wait_for("six messages that wait", lambda: i.tool("queue", "list").stdout.count("<u1@example.test>") == 6
             and "active" not in i.tool("queue", "list").stdout)
    text = i.tool("queue", "list").stdout
    assert text.count("Connection refused") + text.count("the destination does not answer") >= 6, text
    told(text, "Connection refused", "to do: see whether the host is up")
    told(i.tool("queue", "list", "-r").stdout, r"6\b|Connection refused")
    told(qmgr(i), "messages=6", "destinations=1")


# --- logins ---

def test_wrong_password(make_instance):
    i = make_instance(main=PATIENT)
    with smtplib.SMTP("127.0.0.1", i.port["submission"], timeout=30 * SLOW) as s:
        s.starttls()
        with pytest.raises(smtplib.SMTPAuthenticationError) as e:
            s.login("u1@example.test", "wrong")
    assert e.value.smtp_error == b"5.7.8 Error: authentication failed"  # the client is not told why
    told(i.wait_log("warning: auth-failed", 30)[0], "user=u1@example.test client=127.0.0.1", 'reason="wrong password"',
         "remedy=.*bulkhead user passwd")
    told(next(x for x in i.tool("status").stdout.splitlines() if x.startswith("auth[")), "logins_failed=[12]")
    told(i.tool("log", "--explain", "auth-failed").stdout, "A login was refused", "to do: .*bulkhead user passwd")


# --- tables and certificates ---

def test_a_table_breaks_while_the_suite_runs(make_instance):
    """It is replaced by rubbish: the former one stays in use. It is gone at a start: its addresses wait, by name."""
    i = make_instance(start=False, main=PATIENT)
    table = i.etc / "virtual"
    table.write_text("alias@example.test u1@example.test\n")
    subprocess.run([BIN / "bulkhead", "-c", i.etc, "map", "build", table], check=True)
    i.set(virtual_alias_maps=f"lmdb:{table}")
    i.start()
    assert send(i, "alias@example.test")[0] == 250
    (i.etc / "new").write_bytes(b"rubbish" * 1000)
    os.replace(i.etc / "new", i.etc / "virtual.lmdb")
    told(i.wait_log("error: table-refresh", 30)[0], f"lmdb:{table}", "not an LMDB file", "build it with bulkhead map", "remedy=")
    assert send(i, "alias@example.test")[0] == 250
    told(i.tool("check", check=False).stdout, r"main.cf:\d+: virtual_alias_maps: lmdb:", "build it with bulkhead map")
    i.stop()
    i.start()
    told(i.wait_log("error: table-open", 30)[0], f"lmdb:{table}", "not an LMDB file", "build it with bulkhead map")
    assert send(i, "alias@example.test")[0] == 451
    told(next(x for x in i.tool("status").stdout.splitlines() if x.startswith("maps[")), "dead_tables=1", f"lmdb:{table}")


def test_certificates_that_expire_or_do_not_fit(make_instance):
    i = make_instance(start=False, main=PATIENT, all_running=True)
    certificate(i.etc, "old.pem", "old.key", -1)
    certificate(i.etc, "other.pem", "other.key", 90)
    i.set(smtpd_tls_cert_file=i.etc / "old.pem", smtpd_tls_key_file=i.etc / "old.key")
    told(i.tool("check", check=False).stdout, r"main.cf:\d+: smtpd_tls_cert_file = .*old.pem", "has expired", "get a new one")
    i.start()
    lines = i.wait_log("warning: certificate-expiry", 30, 8)
    told("\n".join(lines), r"/smtpd\[\d+\]: warning: certificate-expiry service=", r"/login\[", 'reason="the certificate has expired"', "remedy=.*smtpd_tls_cert_file")
    # a key that belongs to another: the former pair stays in use
    i.set(smtpd_tls_cert_file=i.etc / "other.pem")
    told(i.tool("reload", check=False).stdout, r"main.cf:\d+: smtpd_tls_cert_file = .*other.pem", "key", "give a PEM file with the certificate "
         "first, and the key that belongs to it", "reload refused")
    i.tool("reload", "-f")
    told(i.wait_log("error: certificate-unusable", 30)[0], "service=", "reason=.*key", "remedy=.*smtpd_tls_cert_file")
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=30 * SLOW) as s:
        s.ehlo()
        assert s.starttls()[0] == 220


# --- the suite itself ---

def test_port_taken(make_instance):
    i = make_instance(start=False, main=PATIENT, allow_deaths=True)
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", i.port["pop3"]))
        s.listen()
        told(i.tool("check", check=False).stdout, rf"master.cf:\d+: service 127.0.0.1:{i.port['pop3']}", "Address already in use",
             r"stop the other server \(ss -ltnp shows it\), or choose another port")
        i.start(wait=False)
        wait_for("listen-failed", lambda: "listen-failed" in (i.folder / "stderr").read_text())  # before there is a log
        told((i.folder / "stderr").read_text(), r"error: listen-failed file=\S+master.cf line=\d+", f"port={i.port['pop3']}",
             "Address already in use", "remedy=.*stop the other server or change the port")
        wait_for("the rest of the suite", lambda: (i.run / "control").exists() and " starting" not in i.tool("status", check=False).stdout)
        assert send(i, "u1@example.test")[0] == 250
        told(i.tool("status").stdout, rf"127.0.0.1:{i.port['pop3']} +login .*not all of its sockets are open: see listen-failed")
        told(i.tool("reload", "-f").stdout, f"warning: service 127.0.0.1:{i.port['pop3']}: not all of its sockets are open")
        told(i.wait_log("error: listen-failed", 30)[0], f"port={i.port['pop3']}", "Address already in use")
    i.tool("reload")
    wait_for("the port", lambda: socket.socket().connect_ex(("127.0.0.1", i.port["pop3"])) == 0)


def test_a_daemon_that_keeps_dying(make_instance):
    i = make_instance(main=PATIENT, allow_deaths=True)
    i.faults = True
    end = time.monotonic() + 60 * SLOW
    while "service-throttled service=bounce" not in i.log():
        assert time.monotonic() < end, i.tail()
        for pid in i.pids("bounce"):
            os.kill(pid, signal.SIGABRT)
        time.sleep(0.03)
    told(i.wait_log("error: service-died service=bounce", 30)[0], "signal=ABRT", "remedy=")
    told(i.wait_log("warning: service-throttled service=bounce", 30)[0], "failures=[1-9]", "wait_ms=[1-9]", "remedy=.*lines of this service")
    told(i.tool("status", check=False).stdout, r"bounce +bounce .*(failing .*see the log; it is tried again|starting|ready)")
    assert send(i, "u1@example.test")[0] == 250  # the others go on


@root_only
def test_spool_of_another_owner(make_instance):
    i = make_instance(start=False, main={**PATIENT, "direct_delivery": "no", "transport_maps": "inline:{ {example.test = retry:not now} }"},
                      allow_deaths=True)
    i.start()
    send(i, "u1@example.test")
    i.stop()
    path = next(p for d in (i.spool / "queue").iterdir() if len(d.name) == 1 for p in d.iterdir())
    os.chown(path, 0, 0)  # a folder is given back to qmgr at the start, a file is not
    told(i.tool("check", check=False).stdout, f"main.cf:\\d+: queue_directory: {path} belongs to uid 0, but qmgr has uid", "chown -R")
    i.start()
    told(i.wait_log("error: queue-walk", 30)[0], f"file={path.name}", "Permission denied", "remedy=.*chown .*restart")
    assert path.exists()


def test_corrupt_queue_file_and_a_clock_that_was_ahead(make_instance):
    """A damaged file is set aside by name. Files from the future (the clock was ahead and has been set back) are sent all the
    same: the next attempt is never further away than maximal_backoff_time."""
    i = make_instance(start=False, main={**PATIENT, "direct_delivery": "no", "minimal_backoff_time": "1s", "maximal_backoff_time": "2s",
                                         "transport_maps": "inline:{ {example.test = retry:not now} }"})
    i.start()
    for _ in range(3):
        assert send(i, "u1@example.test")[0] == 250
    i.stop()
    files = sorted(p for d in (i.spool / "queue").iterdir() if len(d.name) == 1 for p in d.iterdir())
    assert len(files) == 3
    data = bytearray(files[0].read_bytes())
    data[-20] ^= 0xff
    files[0].write_bytes(data)
    for path in files[1:]:
        os.utime(path, (time.time() + 10 * 365 * 86400,) * 2)
    i.set(transport_maps="")
    i.start()
    told(i.wait_log("error: queue-corrupt", 30)[0], f"qid={files[0].name}", "reason=", "effect=.moved to corrupt/", "remedy=.*the file begins "
         "with the message")
    assert [p.name for p in (i.spool / "queue" / "corrupt").iterdir()] == [files[0].name]
    told(i.wait_log("queue-recovered", 30)[-1], "messages=2", "corrupt=1")
    i.wait_messages("u1@example.test", 2, 30)


@root_only
def test_disks_that_are_full(make_instance, tmp_path):
    """The queue's: clients keep their mail, and are told. The log's: lines wait, standard error says so, none is lost."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "none", disk], check=False).returncode:
        pytest.skip("no mounts here")
    try:
        i = make_instance(start=False, main={**PATIENT, "queue_minfree": str(1 << 50), "direct_delivery": "no"})
        (disk / "log").mkdir()
        i.log_file = disk / "log" / "mail.log"
        i.write()
        i.start()
        wait_for("452", lambda: send(i, "u1@example.test")[0] == 452)
        told(i.wait_log("error: queue-space-low", 30)[0], r"free=\d+ needed=\d+", "new mail gets 452", "free space in the queue directory or lower "
             "queue_minfree")
        told(qmgr(i), "low_space=1")
        ballast = disk / "ballast"
        with open(ballast, "wb", buffering=0) as f, pytest.raises(OSError):
            while True:
                f.write(b"x" * 4096)
        fill = i.log_file.read_bytes()
        wait_for("a full log", lambda: send(i, "u1@example.test") and "lines wait in memory" in (i.folder / "stderr").read_text())
        told((i.folder / "stderr").read_text(), f"cannot write {i.log_file}", "No space left on device", "free space there, or correct log_file")
        told(next(x for x in i.tool("status").stdout.splitlines() if x.startswith("log[")), "waiting_bytes=[1-9]", "the log cannot be written")
        with smtplib.SMTP("127.0.0.1", i.port["submission"], timeout=30 * SLOW) as s:
            s.starttls()
            with pytest.raises(smtplib.SMTPAuthenticationError):
                s.login("u1@example.test", "wrong")
        ballast.unlink()
        i.wait_log("auth-failed .*wrong password", 30)
        assert i.log_file.read_bytes().startswith(fill[:1000]) and "log-dropped" not in i.log()
        i.stop()
    finally:
        subprocess.run(["umount", "-l", disk], check=False)


def test_store_of_users_is_corrupt(make_instance):
    i = make_instance(start=False, main=PATIENT, allow_deaths=True)
    i.add_user("u1@example.test", "pass1")
    (i.data / "users.lmdb").write_bytes(b"rubbish" * 1000)
    i.start(wait=False)
    told(i.wait_log("error: user-store", 60)[0], str(i.data / "users.lmdb"), "stored data is damaged", "remedy=.*restore the file from a backup")
    told(i.wait_log("error: service-died service=auth|error: service-incomplete service=auth|service-throttled service=auth", 30)[0], "remedy=")


def test_index_of_a_mailbox_is_corrupt(make_instance):
    """An index is a cache: it is made anew, and no message or UID is lost."""
    import imaplib
    i = make_instance(start=False, main=PATIENT)
    i.start()
    for _ in range(3):
        send(i, "u1@example.test")

    def uids():
        c = imaplib.IMAP4("127.0.0.1", i.port["imap"], timeout=30 * SLOW)
        c.starttls()
        c.login("u1@example.test", "pass1")
        validity = c.select()[1], c.response("UIDVALIDITY")[1]
        found = c.uid("SEARCH", "ALL")[1][0]
        c.logout()
        return validity, found

    before = uids()
    assert before[1] == b"1 2 3"
    i.stop()
    indexes = list(i.home("u1@example.test").rglob("*.mdb"))
    assert indexes, list(i.home("u1@example.test").rglob("*"))
    for path in indexes:
        if path.name != "lock.mdb":
            path.write_bytes(b"rubbish" * 3000)
    i.start()
    assert uids() == before
    told(i.wait_log("warning: index-renewed", 30)[0], "user=u1@example.test", "directory=", "reason=.the index was damaged", "remedy=.*check the disk")
