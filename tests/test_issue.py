"""The clauses of the job that no other file shows, each by a real client: addresses as Debian has them, sendmail(1) to
its exit codes, folders at the first login, the tools on a running suite, the supervisor's signals, `make install`."""
import email
import imaplib
import json
import os
import poplib
import re
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import time

import pytest

from instance import BIN, DAEMONS, ROOT, SLOW, wait
from load import acknowledged, load
from sink import Sink

U1, U2 = "u1@example.test", "u2@example.test"
TEXT = "From: a@far.test\r\nSubject: a clause\r\n\r\nbody\r\n"
TWO = {U1: "pass1", U2: "pass2"}


def smtp(i, recipients, text=TEXT, sender="a@far.test", port="smtp"):
    with smtplib.SMTP("127.0.0.1", i.port[port], timeout=60 * SLOW) as client:
        return client.sendmail(sender, recipients, text)


def sendmail(i, *words, input=TEXT.replace("\r\n", "\n")):
    return i.tool(*words, input=input, check=False, program="sendmail")


def imap(i, user=U1, password="pass1"):
    m = imaplib.IMAP4_SSL("localhost", i.port["imaps"], ssl_context=i.tls(), timeout=30 * SLOW)
    assert m.login(user, password)[0] == "OK"
    return m


def header(raw, name):
    m = re.search(rb"^%s:[ \t]*((?:.*)(?:\r?\n[ \t].*)*)" % name.encode(), raw, re.M | re.I)
    return m and re.sub(r"\s+", " ", m[1].decode())


# --- addresses ---

def test_always_bcc(make_instance):
    i = make_instance(users=TWO, main={"always_bcc": U2})
    smtp(i, [U1])
    i.wait_messages(U1)
    [copy] = i.wait_messages(U2)
    assert b"a clause" in copy
    assert sendmail(i, U1).returncode == 0
    i.wait_messages(U1, 2)
    i.wait_messages(U2, 2)
    assert b"u2@example.test" not in b"".join(i.messages(U1))


def test_transport_maps_send_by_domain_and_address(make_instance):
    i = make_instance(start=False, main={"relay_domains": "r.test, gone.test, shut.test", "direct_delivery_deadline": "10s"})
    i.set(smtp_client_ports=i.port["sink"], transport_maps=f"inline:{{ r.test=smtp:[127.0.0.1]:{i.port['sink']}, "
                         "{ gone.test=discard: }, { shut.test=error:5.7.1 closed for ever } }")
    i.start()
    with Sink(i.port["sink"]) as sink:
        smtp(i, ["x@r.test"])
        [m] = sink.wait()
        assert m.recipients == ["x@r.test"]
    smtp(i, ["x@gone.test"])
    i.wait_log(r"to=<x@gone.test>.*discard|discard.*to=<x@gone.test>")
    with pytest.raises((smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError)) as e:
        smtp(i, ["x@shut.test"])
    assert "closed for ever" in str(e.value)


@pytest.mark.parametrize("parameter,to", (("virtual_transport", U1), ("mailbox_transport", "nobody@localhost"),
                                          ("default_transport", "x@far.test")))
@pytest.mark.parametrize("form", ("lmtp:inet:127.0.0.1", "lmtp:[127.0.0.1]"))
def test_transport_parameters(make_instance, parameter, to, form):
    i = make_instance(start=False)
    i.set(**{parameter: f"{form}:{i.port['sink']}"})
    i.start()
    with Sink(i.port["sink"], lmtp=True) as sink:
        smtp(i, [to])
        [m] = sink.wait()
        assert m.recipients == [to] and sink.commands[0].startswith("LHLO ")


def test_unknown_transport_waits(make_instance):
    """As Postfix has it: the mail waits until the table is mended."""
    i = make_instance(start=False, main={"relay_domains": "far.test", "minimal_backoff_time": "1h"})
    table = i.etc / "transport"
    table.write_text("far.test smpt:[127.0.0.1]\n")
    i.set(transport_maps=f"texthash:{table}")
    i.start()
    smtp(i, ["x@far.test"])
    i.wait_log(r' delivery .*to=<x@far.test> status=deferred .*mail transport unavailable: there is no transport')
    table.write_text("far.test discard:\n")
    i.wait_log("table-changed .*texthash:")
    i.tool("queue", "flush")
    i.wait_log(r" delivery .*to=<x@far.test> status=sent", seconds=30)


def test_literals_of_own_interfaces(make_instance):
    """inet_interfaces = all: user@[address] is local for every address of the machine, and for no other."""
    found = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    own = [a for a in found if ":" not in a and not a.startswith("127.")]
    if not own:
        pytest.skip("no address but loopback")
    i = make_instance(main={"inet_interfaces": "all", "mynetworks": "192.0.2.0/24"})
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=60) as c:
        c.ehlo("x")
        c.docmd("MAIL FROM:<>")
        assert c.docmd(f"RCPT TO:<postmaster@[{own[0]}]>")[0] == 250
        assert c.docmd("RCPT TO:<postmaster@[192.0.2.77]>")[0] in (550, 554)


def test_fallback_relay(make_instance):
    """For what is not reached; not for what is refused."""
    i = make_instance(start=False)
    i.set(relayhost=f"[127.0.0.1]:{i.port['dns']}", fallback_relay=f"[127.0.0.1]:1, [127.0.0.1]:{i.port['sink']}",
          direct_delivery_deadline="10s")
    i.start()
    with Sink(i.port["sink"]) as sink:
        smtp(i, ["x@far.test"])
        [m] = sink.wait()
        assert m.recipients == ["x@far.test"]
        i.wait_log("smtp-fallback .*Connection refused", count=2)
        with Sink(i.port["dns"], replies={"RCPT": "550 5.1.1 no such user"}):
            with pytest.raises(smtplib.SMTPDataError, match="no such user"):
                smtp(i, ["y@far.test"])
        assert len(sink.messages) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="mail for a system user")
def test_myorigin_from_a_file(make_instance, tmp_path):
    """A bare name gets the domain that /etc/mailname names: in the envelope and in the header of what is local."""
    name = tmp_path / "mailname"
    name.write_text("example.test\n")
    name.chmod(0o644)
    i = make_instance(users=TWO, main={"myorigin": name})
    assert i.tool("conf", "-h", "myorigin", check=False).returncode in (0, 64)
    assert sendmail(i, "-f", "u1", "u2", input="To: u2\nSubject: bare\n\nx\n").returncode == 0
    [m] = i.wait_messages(U2)
    assert header(m, "Return-Path") in ("<u1@example.test>", None) and i.wait_log("from=<u1@example.test>")
    smtp(i, ["u1"])
    i.wait_messages(U1)


@pytest.mark.parametrize("on", (True, False))
def test_append_at_myorigin(make_instance, on):
    i = make_instance(users=TWO, main={"myorigin": "example.test", "append_at_myorigin": "yes" if on else "no"})
    done = sendmail(i, "u2", input="To: u2, Far <x@far.test>,\n\tTeam: a (one), \"b c\";\nReply-To: <u1>\nX-To: u2\n\nTo: u2\n")
    if on:
        assert done.returncode == 0
        [m] = [m.replace(b"\r\n", b"\n") for m in i.wait_messages(U2)]
        assert m.partition(b"\n\n")[2] == b"To: u2\n" and b"\nX-To: u2\n" in m
        assert (b'\nTo: u2@example.test, Far <x@far.test>,\n\tTeam: a@example.test (one), "b c"@example.test;\n'
                b"Reply-To: <u1@example.test>\n") in m
    else:
        assert not i.messages(U2)


def test_names_that_are_always_valid(make_instance):
    """No aliases at all: root, postmaster, abuse are taken and wait; the reason names the line to add."""
    i = make_instance(start=False, aliases="# none\n")
    i.start()
    for name in ("postmaster", "abuse", "root"):
        smtp(i, [f"{name}@localhost"])
    with smtplib.SMTP("127.0.0.1", i.port["smtp"]) as c:
        c.helo("x")
        c.docmd("MAIL FROM:<>")
        assert c.docmd("RCPT TO:<Postmaster>")[0] == 250
    for line in i.wait_log(r" delivery .*to=<root@[^>]*>.*status=deferred", count=3):
        assert "root: NAME" in line and f"to {i.etc}/aliases"[:60] in line, line  # a reason is cut where it is long
    for name in ("postmaster", "abuse"):
        i.wait_log(rf"smtp-recipient .*orig_to={name}@localhost .*to=root@")
    listed = i.tool("queue", "list").stdout
    assert listed.count("root: NAME") == 3, listed
    check = i.tool("check", check=False).stdout
    assert re.search(r"warning.*root", check), check


# --- sendmail(1) ---

def test_sendmail_options(make_instance):
    i = make_instance(users=TWO)
    assert sendmail(i, "-F", "Full Näme", "-f", "u1@example.test", U2, input="Subject: no from\n\nx\n").returncode == 0
    [m] = i.wait_messages(U2)
    assert "u1@example.test" in header(m, "From") and header(m, "Date") and header(m, "Message-ID")
    assert "Full" in header(m, "From") or "=?utf-8" in header(m, "From").lower()
    assert header(m, "From").isascii()
    done = sendmail(i, "-bv", U1, "nobody-here@example.test", input="")
    said = done.stdout + done.stderr
    assert U1 in said and "nobody-here@example.test" in said, said
    assert done.returncode == 67, (done.returncode, said)
    assert sendmail(i, "-bv", U1, input="").returncode == 0
    assert sendmail(i, "-bp", input="").returncode == 0
    assert sendmail(i, "-q", input="").returncode == 0
    assert i.tool(program="mailq").returncode == 0
    assert sendmail(i, "-bogus", input="").returncode == 64
    assert sendmail(i, input="Subject: nobody\n\n").returncode == 64
    assert sendmail(i, "nobody-here@example.test").returncode == 67


def test_sendmail_runs_the_queue(make_instance):
    """-q tries what waits, -qRtext and the like what they name."""
    i = make_instance(start=False, main={"minimal_backoff_time": "1h"})
    i.set(relayhost=f"[127.0.0.1]:{i.port['sink']}")
    i.start()
    assert sendmail(i, "-f", U1, "far@far.test").returncode == 0
    i.wait_log(r" delivery .*to=<far@far.test> status=deferred .*Connection refused")
    for words in (("-bp",), ()):
        listed = i.tool(*words, program="sendmail" if words else "mailq").stdout
        assert U1 in listed and "Connection refused" in listed, listed
    with Sink(i.port["sink"]) as sink:
        assert sendmail(i, "-q").stdout == "1 message\n"
        [m] = sink.wait()
        assert m.recipients == ["far@far.test"]
    i.wait_log(r" delivery .*to=<far@far.test> status=sent")
    assert sendmail(i, "-bp").stdout == "The queue is empty.\n"


# --- accounts ---

HASHES = {  # of "secret", by crypt(3)
    "md5": "$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1",
    "sha512": "$6$abcdefgh$ltjgWl6579NluT/Vi1nwEvcil.G5Nbc4NiXZaNGStk8PSwGfQv72N2CKPPrVACtLtip/cZ/1GM/O6IND4WQhG.",
    "yescrypt": "$y$j9T$abcdefghabcdefgh$33GKDcejmUsteEtKC/Ej0TjjSYt7OxVNq.2SLlXxZu6",
    "bcrypt": "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"}


def test_imported_hashes_of_every_kind(make_instance):
    i = make_instance(main={"auth_failure_delay": "0"})
    for kind, crypt in HASHES.items():
        user = f"{kind}@example.test"
        i.tool("user", "add", user, f"crypt={crypt}")
        assert "credential=crypt" in [line for line in i.tool("user", "list").stdout.splitlines() if user in line][0]
        assert i.tool("user", "check", user, input="wrong\n", check=False).returncode == 1
        with smtplib.SMTP("localhost", i.port["submission"], timeout=30 * SLOW) as c:
            c.starttls(context=i.tls())
            with pytest.raises(smtplib.SMTPAuthenticationError):
                c.login(user, "wrong")
            c.login(user, "secret")
            assert not c.sendmail(user, [U1], TEXT.replace("a@far.test", user))
        m = imap(i, user, "secret")
        m.logout()


def test_certificate_of_the_smtp_services_is_replaced(make_instance, tmp_path):
    """By a reload, while a session with the old one lives on."""
    def make(name):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                        "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost", "-keyout", "key", "-out", "cert"],
                       cwd=tmp_path, check=True, stderr=subprocess.DEVNULL)
        (tmp_path / "key").chmod(0o600)

    def served(port, wrapped=False):
        context = ssl._create_unverified_context()
        c = smtplib.SMTP_SSL("localhost", i.port[port], context=context) if wrapped else smtplib.SMTP("localhost", i.port[port])
        if not wrapped:
            c.starttls(context=context)
        return c, c.sock.getpeercert(True)

    make("one.test")
    i = make_instance(main={"smtpd_tls_cert_file": tmp_path / "cert", "smtpd_tls_key_file": tmp_path / "key"})
    ports = (("smtp", False), ("submission", False), ("submissions", True))
    before = [served(*p) for p in ports]
    assert len({der for _, der in before}) == 1
    make("two.test")
    i.reload()
    for p, (old, der) in zip(ports, before):
        end = time.monotonic() + 10 * SLOW
        while True:
            c, now = served(*p)
            c.quit()
            if now != der:
                break
            assert time.monotonic() < end, f"{p}: the old certificate is still served"
            time.sleep(0.1)
        assert old.noop()[0] == 250
        old.quit()


# --- IMAP ---

def test_first_login(make_instance):
    """The usual folders are there at the first login, with their uses; what the CAPABILITY names works."""
    i = make_instance(users=TWO)
    m = imap(i)
    listed = b"\n".join(m.list()[1]).decode()
    for use in ("Drafts", "Sent", "Trash", "Junk", "Archive"):
        assert f"\\{use}" in listed, listed
    for cap in ("IMAP4REV1", "ID", "ENABLE", "LIST-STATUS", "SPECIAL-USE", "STATUS=SIZE", "ESEARCH", "SEARCHRES", "BINARY",
                "LITERAL-", "MOVE", "UIDPLUS", "NAMESPACE", "UNSELECT", "IDLE"):
        assert cap in m.capability()[1][0].decode().upper().split(), cap
    before = imaplib.IMAP4("localhost", i.port["imap"])
    assert "LOGINDISABLED" in before.capabilities and "STARTTLS" in before.capabilities
    with pytest.raises(imaplib.IMAP4.error, match="PRIVACYREQUIRED|TLS"):
        before.login(U1, "pass1")
    m.logout()


# --- DSN, hold, trace ---

def test_trace_of_a_real_message_fits_a_screen(make_instance):
    i = make_instance(users=TWO)
    smtp(i, [U1])
    i.wait_messages(U1)
    [line] = i.wait_log(r" delivery .*to=<u1@example.test>.*status=sent")[:1]
    queue_id = re.search(r"\bqid=(\S+)", line)[1]
    i.wait_log("smtp-message .*qid=" + queue_id)
    out = i.tool("trace", queue_id).stdout
    assert len(out.splitlines()) <= 25, out
    for word in ("connect", "127.0.0.1", U1, "delivery", "status=sent", f"{i.home(U1)}/Maildir"):
        assert word in out, (word, out)


# --- content for a next hop that can do less ---

def test_binary_and_8bit_content_for_an_old_next_hop(make_instance):
    i = make_instance(start=False)
    i.set(relayhost=f"[127.0.0.1]:{i.port['sink']}")
    i.start()
    octets = bytes(range(256)) * 40 + b"\r\n.\r\n\n\r"
    head = (b"From: a@far.test\r\nSubject: octets\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\n"
            b"Content-Transfer-Encoding: binary\r\n\r\n")
    with Sink(i.port["sink"], features=("PIPELINING",)) as sink:
        with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=60 * SLOW) as c:
            c.ehlo("x")
            assert c.docmd("MAIL FROM:<a@far.test> BODY=BINARYMIME")[0] == 250
            assert c.docmd("RCPT TO:<b@far.test>")[0] == 250
            c.send(b"BDAT %d LAST\r\n" % len(head + octets) + head + octets)
            assert c.getreply()[0] == 250
            assert c.docmd("MAIL FROM:<a@far.test> BODY=8BITMIME")[0] == 250
            assert c.docmd("RCPT TO:<c@far.test>")[0] == 250
            text = "Grüße, Welt"
            assert c.data(f"Subject: eight\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
                          f"Content-Transfer-Encoding: 8bit\r\n\r\n{text}\r\n".encode())[0] == 250
        binary, eight = sorted(sink.wait(2), key=lambda m: m.recipients)
    for m in (binary, eight):
        assert m.content.isascii() and max(map(len, m.content.split(b"\r\n"))) <= 998 and "BODY" not in " ".join(m.parameters)
    assert email.message_from_bytes(binary.content).get_payload(decode=True) == octets
    assert email.message_from_bytes(eight.content).get_payload(decode=True).decode().strip() == text


def test_source_address_in_brackets(make_instance):
    i = make_instance(start=False, main={"inet_protocols": "all", "smtp_bind_address6": "[::1]"})
    i.set(relayhost=f"[::1]:{i.port['sink']}")
    i.start()
    with Sink(i.port["sink"], "::1") as sink:
        smtp(i, ["x@far.test"])
        sink.wait()


# --- crashes ---

def mixed(client, n):
    """To a mailbox and to the next hop, small and large; marked by subject and recipient."""
    subject, to = f"{client}-{n}", [[U1], ["far@far.test"], [U1, "far@far.test"]][n % 3]
    text = f"From: a@far.test\r\nSubject: {subject}\r\n\r\n" + "x" * 70 * (n % 2) + "\r\n" + "y\r\n" * (n % 7 == 0) * 9000
    return "a@far.test", to, text, {(subject, t) for t in to}


def subjects(texts):
    return {re.search(rb"^Subject: (\S+)", t, re.M)[1].decode() for t in texts}


def test_kill_9_of_each_daemon_under_load(make_instance):
    """Nothing that was acknowledged is lost, whoever dies; and in the end everybody works again."""
    i = make_instance(start=False, allow_deaths=True,
                      main={"minimal_backoff_time": "1s", "smtpd_client_connection_count_limit": "0"})
    i.set(relayhost=f"[127.0.0.1]:{i.port['sink']}")
    i.start()
    with Sink(i.port["sink"]) as sink:
        with load(i, 4, mixed) as clients:
            for program in (*DAEMONS, "smtpd", "submission", "login", "smtpd"):
                time.sleep(0.25)
                i.kill_program(program)
            time.sleep(1)
        sent = acknowledged(clients)
        assert len(sent) > 100
        want = [{s for s, to in sent if to == U1}, {s for s, to in sent if to != U1}]
        end = time.monotonic() + 90 * SLOW
        while time.monotonic() < end:
            i.tool("queue", "flush", check=False)
            with sink.lock:
                far = subjects(m.content for m in sink.messages)
            near = subjects(i.messages(U1))
            if want[0] <= near and want[1] <= far:
                break
            time.sleep(0.3)
        assert not want[0] - near and not want[1] - far, (sorted(want[0] - near)[:9], sorted(want[1] - far)[:9], i.tail())
    i.wait_ready()
    m = imap(i)
    assert m.select("INBOX")[0] == "OK"
    m.logout()


@pytest.mark.parametrize("code", (7, 75))
def test_a_service_that_keeps_failing_is_throttled(make_instance, tmp_path, code):
    """It is named with the reason, is not spun on, and touches nobody else. 75 is how one that was ready asks for a successor."""
    programs = tmp_path / "bin"
    shutil.copytree(BIN, programs, symlinks=True)
    (programs / "pop3d").unlink()
    (programs / "pop3d").write_text(f"#!/bin/sh\nexit {code}\n")
    (programs / "pop3d").chmod(0o755)
    for d in (tmp_path, programs):
        d.chmod(0o755)
    i = make_instance(start=False, allow_deaths=True, main={"daemon_directory": programs})
    i.start(wait=False)
    lines = i.wait_log(r"master\[.*(pop3d)", 20)
    time.sleep(3)
    lines = [line for line in i.log().splitlines() if "master[" in line and "pop3d" in line]
    assert len(lines) < 12, lines
    assert any(re.search(rf"status={code}\b", line) for line in lines), lines
    smtp(i, [U1])
    i.wait_messages(U1)
    end = time.monotonic() + 10 * SLOW  # at the very moment of a try it is "starting"
    while not re.search(r"^pop3d .*failing", status := i.tool("status", check=False).stdout, re.M):
        assert time.monotonic() < end, status
        time.sleep(0.05)


# --- supervisor ---

def test_both_families_and_options_of_a_row(make_instance):
    i = make_instance(start=False, main={"inet_protocols": "all", "inet_interfaces": "127.0.0.1, [::1]"})
    with socket.socket(socket.AF_INET6) as s:
        try:
            s.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
    i.services = [f"{i.port['smtp']} inet n - y - - smtpd",
                  f"[::1]:{i.port['lmtp']} inet n - y - - smtpd -o smtpd_banner=six -o {{ smtpd_recipient_limit = 1 }}"]
    i.write()
    i.start()
    for host in ("127.0.0.1", "::1"):
        with smtplib.SMTP(host, i.port["smtp"]) as c:
            c.sendmail("a@far.test", [U1], TEXT)
    assert any(b"[IPv6:::1]" in m for m in i.wait_messages(U1, 2))
    with smtplib.SMTP() as c:
        assert c.connect("::1", i.port["lmtp"])[1].startswith(b"six")
        c.ehlo("x")
        c.mail("a@far.test")
        assert c.rcpt(U1)[0] == 250 and c.rcpt(U1)[0] == 452


def test_log_as_json_on_stderr(make_instance):
    i = make_instance(start=False, main={"log_target": "stderr", "log_format": "json"})
    i.start()
    smtp(i, [U1])
    i.wait_messages(U1)
    end = time.monotonic() + 10 * SLOW
    events = {}
    while time.monotonic() < end and "smtp-message" not in events:
        time.sleep(0.1)
        for line in (i.folder / "stderr").read_text().splitlines():
            if line.startswith("{"):
                events[json.loads(line)["event"]] = json.loads(line)
    assert events["smtp-message"]["code"] in (250, "250") and events["smtp-message"]["role"] == "smtpd-child"


@pytest.mark.parametrize("how", ["reload", "reopen"])
def test_log_file_is_rotated(make_instance, how):
    """Rename, then reload, or log --reopen as packaging/bulkhead.logrotate does, which no mistake in main.cf keeps back. No line
    is lost, none goes to the old file afterwards."""
    i = make_instance()
    smtp(i, [U1])
    i.wait_log("smtp-disconnect .*messages=1")
    old = i.log_file.rename(str(i.log_file) + ".1")
    if how == "reopen":
        i.set(smtpd_timeout="soon")
        assert i.tool("reload", check=False).returncode != 0
        i.tool("log", "--reopen")
    else:
        i.reload()
    smtp(i, [U1])
    i.wait_log("smtp-disconnect .*messages=1")
    assert old.read_text().count("smtp-message") == 1 and i.log().count("smtp-message") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's folders are their own")
def test_the_folder_of_the_log_is_as_master_makes_it(make_instance):
    """A reload, which checks, finds nothing wrong with it; somebody else's is."""
    i = make_instance(start=False)
    i.log_file.parent.rmdir()
    i.start()
    assert i.log_file.parent.stat().st_uid not in (0, i.home(U1).stat().st_uid)
    i.reload()
    os.chown(i.log_file.parent, 65534, -1)
    assert "belongs to uid 65534: chown root it" in i.tool("check", check=False).stdout


@pytest.mark.parametrize("form", ["text", "json"])
def test_lines_for_the_journal_begin_with_their_severity(make_instance, form):
    """Where standard error is the journal's: those before the log runs, too."""
    i = make_instance(main={"log_target": "stderr", "log_format": form}, start=False)
    path = i.folder / "stderr"
    path.touch()
    os.environ["JOURNAL_STREAM"] = f"{path.stat().st_dev}:{path.stat().st_ino}"
    try:
        i.start()
    finally:
        del os.environ["JOURNAL_STREAM"]
    with pytest.raises(imaplib.IMAP4.error):
        imap(i, U1, "wrong")
    smtp(i, [U1])
    wait(lambda: "smtp-message" in path.read_text() and "auth-failed" in path.read_text())
    lines = [line for line in path.read_text().splitlines() if "ordinary user" not in line]
    assert all(re.match(r"<[346]>", line) for line in lines), lines
    for event, severity in (("certificate-made", 4), ("auth-failed", 4), ("smtp-message", 6)):
        assert [line[:3] for line in lines if event in line] and all(f"<{severity}>" == line[:3] for line in lines if event in line), lines


@pytest.mark.skipif(os.geteuid() != 0, reason="root may be kept out of nothing, bh-log may")
def test_a_log_that_cannot_start_says_so(make_instance):
    """On standard error: nobody reads what it would log."""
    i = make_instance(start=False, allow_deaths=True)
    i.log_file.parent.chmod(0o700)
    i.start(wait=False)
    wait(lambda: "bulkhead/log[" in (i.folder / "stderr").read_text(), 20)
    text = (i.folder / "stderr").read_text()
    assert re.search(r"bulkhead/log\[\d+\]: error: start-failed service=log step=jail reason=.*remedy=", text), text
    i.log_file.parent.chmod(0o755)
    i.wait_ready()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_peer_of_the_bench(make_instance, tmp_path):
    """bench/peer-bulkhead: every port that it is told, and a login with and without the domain."""
    port = make_instance(start=False).port  # in the order of peer-bulkhead
    env = {**os.environ, "BIN": str(BIN), "SUBMITPORT": str(port["submission"]), "IMAPPORT": str(port["imap"])}
    words = [ROOT / "bench/peer-bulkhead", "start", tmp_path / "peer", str(port["smtp"])]
    subprocess.run(words, env=env, check=True, capture_output=True, timeout=120 * SLOW)
    try:
        context = ssl._create_unverified_context()
        with smtplib.SMTP("127.0.0.1", port["smtp"]) as c, smtplib.LMTP("127.0.0.1", port["lmtp"]) as lmtp:
            c.sendmail("a@far.test", ["u1@bench.test", "u100@bench.test"], TEXT)
            lmtp.sendmail("a@far.test", ["u1@bench.test"], TEXT)
        for c in (smtplib.SMTP("127.0.0.1", port["submission"]), smtplib.SMTP_SSL("127.0.0.1", port["submissions"], context=context)):
            if not isinstance(c, smtplib.SMTP_SSL):
                c.starttls(context=context)
            c.login("u2", "pass")
            c.sendmail("u2@bench.test", ["u1@bench.test"], TEXT)
            c.quit()
        for m in (imaplib.IMAP4("127.0.0.1", port["imap"]), imaplib.IMAP4_SSL("127.0.0.1", port["imaps"], ssl_context=context)):
            if not isinstance(m, imaplib.IMAP4_SSL):
                m.starttls(context)
            m.login("u1", "pass")
            assert m.select()[1] == [b"4"]
            m.logout()
        for p in (poplib.POP3("127.0.0.1", port["pop3"]), poplib.POP3_SSL("127.0.0.1", port["pop3s"], context=context)):
            if not isinstance(p, poplib.POP3_SSL):
                p.stls(context)
            p.user("u100@bench.test"), p.pass_("pass")
            assert p.stat()[0] == 1
            p.quit()
        assert len(list((tmp_path / "peer/mail/u100").rglob("[cn][ue][rw]/*"))) == 1
    finally:
        subprocess.run([words[0], "stop", words[2]], env=env, check=True, capture_output=True, timeout=120 * SLOW)


# --- limits ---

def test_rates_of_a_client_outlive_the_process(make_instance):
    """mynetworks is spared; the counts are qmgr's, so that a new process and a new session change nothing."""
    limits = {"smtpd_client_message_rate_limit": "2", "smtpd_client_recipient_rate_limit": "5"}
    i = make_instance(main={**limits, "mynetworks": "192.0.2.1"}, allow_deaths=True)

    def session():
        with smtplib.SMTP("127.0.0.1", i.port["smtp"]) as c:
            c.helo("x")
            return c.docmd("MAIL FROM:<a@far.test>")[0], [c.docmd(f"RCPT TO:<{U1}>")[0] for _ in range(2)]

    assert session()[0] == 250 and session()[0] == 250
    for pid in i.pids("smtpd"):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    i.wait_ready()
    assert session()[0] == 450
    spared = make_instance(main=limits)
    for _ in range(4):
        smtp(spared, [U1, U1])


# --- supervisor: what a service manager sees ---

def test_sd_notify(make_instance, tmp_path):
    i = make_instance(start=False)
    path = tmp_path / "notify"
    got = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(path))
        s.settimeout(20 * SLOW)
        os.environ["NOTIFY_SOCKET"] = str(path)
        try:
            i.start()
        finally:
            del os.environ["NOTIFY_SOCKET"]
        while not any("READY=1" in g for g in got):
            got.append(s.recv(4096).decode())
        i.stop()
        while not any("STOPPING=1" in g for g in got):
            got.append(s.recv(4096).decode())
        # stop_timeout = 20 s and what ends the rest, should the manager's own limit be less
        assert "STOPPING=1\nEXTEND_TIMEOUT_USEC=30000000" in got


def test_a_mistake_in_the_configuration_has_a_status_of_its_own(make_instance):
    """78, by which the unit knows that trying again is no use; anything else is tried again."""
    i = make_instance(main={"smtpd_timeout": "soon"}, start=False)
    done = subprocess.run([BIN / "master", "-c", i.etc], capture_output=True, text=True, timeout=60 * SLOW)
    assert done.returncode == 78 and re.search(r"main\.cf:\d+: smtpd_timeout.*\n(.*\n)*master: the configuration in .* has errors", done.stderr), done
    assert re.search(r"^RestartPreventExitStatus=78$", (ROOT / "packaging/bulkhead.service.in").read_text(), re.M)
    i.set(smtpd_timeout="10s", data_directory="/proc/nowhere")
    done = subprocess.run([BIN / "master", "-c", i.etc], capture_output=True, text=True, timeout=60 * SLOW)
    assert done.returncode == 1 and "/proc/nowhere" in done.stderr, done


# --- packaging ---

def test_install_is_complete(tmp_path):
    if "rel" not in str(BIN):
        pytest.skip("the release build is what is installed")
    # without PREFIX: another one would build the programs anew under the feet of the other tests
    done = subprocess.run(["make", "-s", "-C", ROOT, f"O={os.path.relpath(BIN.parent, ROOT)}", "install", f"DESTDIR={tmp_path}"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    have = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if not p.is_dir()}
    rows = re.findall(r"^\S+\s+(?:unix|inet)\s+.*?(\S+)$", (ROOT / "conf/master.cf").read_text(), re.M)
    daemons = {"master", "pam"} | set(rows)
    want = {f"usr/local/libexec/bulkhead/{d}" for d in daemons}
    want |= {"usr/local/sbin/bulkhead", "usr/local/sbin/sendmail", "usr/local/lib/sendmail", "usr/local/bin/mailq", "usr/local/bin/newaliases",
             "usr/local/lib/systemd/system/bulkhead.service", "etc/logrotate.d/bulkhead", "usr/local/lib/sysusers.d/bulkhead.conf",
             "etc/pam.d/bulkhead", "etc/aliases"}
    want |= {f"usr/local/share/man/man8/{d}.8" for d in daemons | {"bulkhead"}}
    want |= {f"usr/local/share/man/man1/{t}.1" for t in ("sendmail", "mailq", "newaliases")}
    want |= {f"usr/local/share/man/man5/{t}.5" for t in ("main.cf", "master.cf", "aliases")}
    assert want <= have, sorted(want - have)
    pages = [str(p) for p in (tmp_path / "usr/local/share/man").rglob("*.[158]")]
    lint = subprocess.run(["mandoc", "-Tlint", "-Wwarning", *pages], capture_output=True, text=True)
    assert lint.stdout == "" and lint.returncode == 0, lint.stdout
    unit = (tmp_path / "usr/local/lib/systemd/system/bulkhead.service").read_text()
    rotate = (tmp_path / "etc/logrotate.d/bulkhead").read_text()
    assert "@" not in re.sub(r"#.*", "", unit + rotate) and "Type=notify" in unit
    for tool, name, text in (("systemd-analyze verify --man=no", "bulkhead.service", unit), ("logrotate -d", "rotate", rotate)):
        if shutil.which(tool.split()[0]):
            (tmp_path / name).write_text(text.replace("/usr/local/", f"{tmp_path}/usr/local/").replace("bh-log", "root"))
            done = subprocess.run([*tool.split(), tmp_path / name], capture_output=True, text=True)
            assert done.returncode == 0 and not re.search("error|bulkhead.service:", done.stdout + done.stderr), done
    run = subprocess.run([tmp_path / "usr/local/sbin/bulkhead", "conf", "-d", "daemon_directory"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="the unit is root's")
def test_capabilities_of_the_unit_suffice(make_instance, tmp_path):
    """master has no more than the systemd unit leaves it, and everything that asks master for something works."""
    unit = (ROOT / "packaging/bulkhead.service.in").read_text()
    caps = re.search(r"^CapabilityBoundingSet=(.*)", unit, re.M)[1].lower().replace("cap_", "+").replace(" ", ",")
    assert "\nRestrictSUIDSGID" not in unit  # no chmod of maildrop/
    out = tmp_path / "out"
    out.mkdir(mode=0o777)
    out.chmod(0o777)
    i = make_instance(start=False, users=TWO, aliases=f"root: {U1}\nprog: \"|/usr/bin/tee {out}/got\"\n")
    i.command = ["setpriv", f"--bounding-set=-all,{caps}"]
    i.start()
    drop = i.spool / "maildrop"
    assert drop.stat().st_mode & 0o7777 == 0o3733
    smtp(i, [U1, "prog@localhost"])
    i.wait_messages(U1)
    wait(lambda: (out / "got").exists() and b"a clause" in (out / "got").read_bytes())
    i.tool("user", "add", "u3@example.test", input="pass3\n")
    assert i.home("u3@example.test").stat().st_uid not in (0, i.home(U1).stat().st_uid)
    imap(i, "u3@example.test", "pass3").logout()
    roots = i.tool("security").stdout
    assert str(drop) in roots and f"{i.run}/empty" in roots and not re.search(r" \?$", roots, re.M), roots
    i.reload()
    i.tool("upgrade")
    i.wait_ready()
    i.stop()
    sendmail(i, U2)
    assert (drop.stat().st_gid, len(list(drop.iterdir()))) == (next(drop.iterdir()).stat().st_gid, 1)
    i.start()
    i.wait_messages(U2)


def test_version():
    for word in ("-V", "--version"):
        done = subprocess.run([BIN / "bulkhead", word], capture_output=True, text=True)
        assert done.returncode == 0 and re.match(r"bulkhead \d+\.\d+\.\d+ layout [0-9a-f]{16}\n$", done.stdout), done
