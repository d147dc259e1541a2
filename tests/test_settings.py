"""Parameters that no other file turns: each by what it changes for a client, a mailbox or the next hop."""
import os
import re
import signal
import smtplib
import threading
import time

import pytest

from instance import SLOW, wait
from nameserver import HAVE, Nameserver
from sink import HANG, Sink

U1, U2 = "u1@example.test", "u2@example.test"
TWO = {U1: "pass1", U2: "pass2"}
TEXT = "From: a@far.test\r\nSubject: settings\r\n\r\nbody\r\n"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs uids of its own")


def send(i, to, text=TEXT, sender="a@far.test"):
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=60 * SLOW) as c:
        return c.sendmail(sender, [to] if isinstance(to, str) else to, text)


def rcpt(i, to, sender="a@far.test"):
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=60 * SLOW) as c:
        c.ehlo("x")
        c.mail(sender)
        code, text = c.rcpt(to)
        return code, text.decode()


def submit(i, to, text="Subject: submitted\r\n\r\nbody\r\n", user=U1, password="pass1"):
    with smtplib.SMTP("localhost", i.port["submission"], timeout=60 * SLOW) as c:
        c.starttls(context=i.tls())
        c.login(user, password)
        return c.sendmail(user, [to], text)


@pytest.fixture
def to_sink(make_instance):
    """to_sink(main) gives an instance whose relayhost is its sink port."""
    def make(main=None, **options):
        i = make_instance(start=False, **options)
        i.set(**{"relayhost": f"[127.0.0.1]:{i.port['sink']}", "minimal_backoff_time": "1h", **(main or {})})
        return i.start()
    return make


# --- what the receivers take and add ---

@pytest.mark.parametrize("main,there,absent", [
    ({}, (rb"^Date: ", rb"^Message-ID: ", rb"using TLSv1\."), (rb"127\.0\.0\.1",)),
    ({}, (rb"^To: x\r?\nSubject: submitted",), (rb"(?i)^bcc: a", rb"(?i)resent-bcc", rb"folded", rb"^Content-Length")),
    ({"message_drop_headers": "x-mine, TO"}, (rb"^Bcc: a@b.test,\r?\n folded@c.test", rb"^Return-Path: <u1.*\n(?s:.*)^Return-Path: <x>"), (rb"^X-Mine", rb"^To: ")),
    ({"submission_client_header": "yes"}, (rb"\[127\.0\.0\.1\]",), ()),
    ({"submission_add_headers": "no"}, (rb"^Subject: submitted",), (rb"^Date: ", rb"^Message-ID: ")),
    ({"smtpd_tls_received_header": "no"}, (rb"^Received: ",), (rb"TLSv1\.",))])
def test_headers_of_what_is_submitted(make_instance, main, there, absent):
    i = make_instance(users=TWO, main=main)
    submit(i, U2, b"N\xc3\xa9: 1\r\nBcc: a@b.test,\r\n folded@c.test\r\nX-Mine: 1\r\nReturn-Path: <x>\r\nTo: x\r\nSubject: submitted\r\n"
           b"RESENT-BCC:y@c.test\r\nContent-Length: 5\r\n\r\nbody\r\nBCC of the body\r\n\r\nBcc: of the body\r\n")
    [m] = i.wait_messages(U2)
    assert m.replace(b"\r", b"").endswith(b"\n\nbody\nBCC of the body\n\nBcc: of the body\n")
    for pattern in there:
        assert re.search(pattern, m, re.M), (pattern, m)
    for pattern in absent:
        assert not re.search(pattern, m, re.M), (pattern, m)


def test_submission_for_those_who_have_no_tls_and_no_login(make_instance):
    i = make_instance(main={"submission_tls_security_level": "may", "submission_require_auth": "no"})
    with smtplib.SMTP("localhost", i.port["submission"], timeout=20 * SLOW) as c:
        c.ehlo("x")
        assert c.has_extn("starttls") and not c.has_extn("auth")
        assert c.sendmail(U1, [U1], TEXT) == {}
    i.wait_messages(U1)


def test_smtputf8_enable(make_instance):
    i = make_instance(main={"smtputf8_enable": "no"})
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=20 * SLOW) as c:
        c.ehlo("x")
        assert not c.has_extn("smtputf8")
        assert c.docmd("MAIL FROM:<a@far.test> SMTPUTF8")[0] == 555


def test_recipients_that_are_not_listed(make_instance):
    i = make_instance(main={"smtpd_reject_unlisted_recipient": "no"})
    assert rcpt(i, "nobody@example.test")[0] == 250
    with pytest.raises(smtplib.SMTPDataError, match="5.1.1"):  # the first answer of the delivery goes to the client
        send(i, "nobody@example.test")


def test_relay_recipients_and_those_that_have_moved(make_instance):
    i = make_instance(main={"relay_domains": "r.test", "mynetworks": "192.0.2.1", "relay_recipient_maps": "inline:{ok@r.test=x}",
                            "relocated_maps": "inline:{gone@example.test=new@far.test}"})
    assert rcpt(i, "ok@r.test")[0] == 250
    assert rcpt(i, "other@r.test")[0] == 550
    code, text = rcpt(i, "gone@example.test")
    assert code // 100 == 5 and "5.1.6" in text and "new@far.test" in text


def test_rewriting_of_the_envelope(make_instance):
    i = make_instance(users=TWO, main={
        "canonical_maps": "inline:{both@old.test=u1@example.test}", "sender_canonical_maps": "inline:{s@old.test=s@new.test}",
        "recipient_canonical_maps": "inline:{r@old.test=u2@example.test}", "masquerade_domains": "corp.test",
        "masquerade_exceptions": "root", "recipient_bcc_maps": "inline:{u1@example.test=u2@example.test}"})
    send(i, "both@old.test", sender="both@old.test")
    [m] = i.wait_messages(U1)
    assert m.startswith(b"Return-Path: <u1@example.test>")
    i.wait_messages(U2)  # the copy
    send(i, "r@old.test", sender="s@old.test")
    assert i.wait_messages(U2, 2) and any(m.startswith(b"Return-Path: <s@new.test>") for m in i.messages(U2))
    for sender, seen in (("x@host.corp.test", b"x@corp.test"), ("root@host.corp.test", b"root@host.corp.test")):
        send(i, U2, sender=sender)
        wait(lambda: any(m.startswith(b"Return-Path: <%s>" % seen) for m in i.messages(U2)), 10, seen)


@root_only
def test_uid_and_gid_of_a_virtual_user(make_instance):
    i = make_instance(start=False)
    i.set(virtual_mailbox_maps="inline:{v@example.test=v/}", virtual_uid_maps=f"inline:{{v@example.test={i.uid_base + 777}}}", virtual_gid_maps=f"static:{i.uid_base + 778}")
    i.start()
    (i.mail / "v").mkdir()
    os.chown(i.mail / "v", i.uid_base + 777, i.uid_base + 778)
    send(i, "v@example.test")
    [file] = wait(lambda: list((i.mail / "v").rglob("new/*")), 10, "the message")
    assert (file.stat().st_uid, file.stat().st_gid) == (i.uid_base + 777, i.uid_base + 778)


@pytest.mark.parametrize("main,processes", [({}, 1), ({"process_session_limit": "2"}, 2), ({"smtpd_sessions_per_process": "1"}, 3)])
def test_sessions_of_a_process(make_instance, main, processes):
    """Four sessions at once; who knocked at the start had its own."""
    i = make_instance(main={"smtpd_client_connection_count_limit": "0", **main})
    clients = [smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=20 * SLOW) for _ in range(4)]
    lines = i.wait_log(rf"smtp-connect .*service=127.0.0.1:{i.port['smtp']}$", count=5)[1:]
    pids = {re.search(r"smtpd-child\[(\d+)\]", line)[1] for line in lines}
    assert len(pids) >= processes and (main or len(pids) == 1), lines
    for c in clients:
        assert c.noop()[0] == 250
        c.quit()


def test_maildrop_limits(make_instance):
    i = make_instance(start=False, main={"maildrop_owner_limit": "2", "maildrop_file_limit": "2000", "message_size_limit": "0"})
    i.start()
    i.stop()
    for n in range(3):
        assert i.tool(U1, program="sendmail", input=f"Subject: {n}\n\nx\n").returncode == 0
    i.start()
    i.wait_messages(U1, 2)
    i.wait_log("maildrop_owner_limit")
    i.stop()
    i.start()  # it would look again in a minute
    i.wait_messages(U1, 3)
    i.stop()
    large = "Subject: large\n\n" + ("x" * 70 + "\n") * 70000
    done = i.tool(U1, program="sendmail", input=large, check=False)
    assert done.returncode == 75 and "maildrop_file_limit" in done.stderr
    folder = i.spool / "maildrop"
    (folder / ".large").write_text(f"bulkhead-maildrop 1\nsender {U1}\nrecipient {U1}\n\n" + large.replace("\n", "\r\n"), newline="")
    (folder / ".large").chmod(0o644)
    (folder / ".large").rename(folder / "large")
    i.start()
    i.wait_log("maildrop-refused .*maildrop_file_limit")
    assert len(i.messages(U1)) == 3


@pytest.mark.parametrize("user", ["u1@xn--bcher-kva.test", "u1@b\u00fccher.test"])
def test_a_domain_in_both_forms(make_instance, user):
    """IDNA2008: whichever form of a domain the admin and the clients write, it is one."""
    i = make_instance(users={user: "pass1"}, main={"virtual_mailbox_domains": "xn--bcher-kva.test"})
    assert i.tool("user", "list").stdout.startswith("u1@xn--bcher-kva.test ")
    forms = ("u1@xn--bcher-kva.test", "u1@b\u00fccher.test", "u1@B\u00dcCHER.test")
    for to in forms:
        with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=60 * SLOW) as c:
            c.ehlo("x")
            c.command_encoding = "utf-8"
            assert c.docmd("MAIL FROM:<a@far.test>" + " SMTPUTF8" * (not to.isascii()))[0] == 250
            code, text = c.docmd(f"RCPT TO:<{to}>")
            assert code == 250, (to, text)
            assert c.data(TEXT)[0] == 250
        assert i.tool("user", "check", to, input="pass1\n").returncode == 0
    wait(lambda: len(list((i.mail / "xn--bcher-kva.test/u1/Maildir/new").iterdir())) == 3, 10, "three messages")


# --- the log ---

def test_log_level(make_instance):
    i = make_instance(main={"log_level": "warning"})
    send(i, U1)
    i.wait_messages(U1)
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send(i, "nobody@example.test")
    i.allow_deaths = True
    os.kill(i.pids("bounce")[0], signal.SIGKILL)
    i.wait_log("service-died")
    assert "smtp-message" not in i.log() and "delivery" not in i.log()


# --- the queue ---

def test_transports_that_are_deferred(to_sink):
    i = to_sink({"defer_transports": "smtp"})
    with Sink(i.port["sink"]) as sink:
        send(i, "x@far.test")
        wait(lambda: "x@far.test" in i.tool("queue", "list").stdout or "far" in i.tool("queue", "list").stdout, 10, "the message")
        time.sleep(0.5)
        assert not sink.connections
        i.tool("queue", "flush")
        sink.wait()


@pytest.mark.parametrize("parameter,to", [("relay_transport", "x@r.test"), ("local_transport", "root@localhost")])
def test_transports_of_domains(make_instance, parameter, to):
    i = make_instance(start=False, main={"relay_domains": "r.test"}, aliases="# none\n")
    i.set(**{parameter: "lmtp:[127.0.0.1]", "lmtp_tcp_port": i.port["sink"]})
    i.start()
    with Sink(i.port["sink"], lmtp=True) as sink:
        send(i, to)
        [m] = sink.wait()
        assert sink.commands[0].startswith("LHLO ") and m.recipients[0].startswith(to.split("@")[0])


class Slow(Sink):
    """Counts the transactions that are under way at once, each of which takes its time."""

    def __init__(self, port, seconds=0.2):
        super().__init__(port, replies={"END": self.end})
        self.now, self.most, self.counting, self.seconds, self.ends = 0, 0, threading.Lock(), seconds, []

    def end(self, _):
        with self.counting:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self.seconds)
        with self.counting:
            self.now -= 1
            self.ends.append(time.monotonic())


@pytest.mark.parametrize("parameter", ["default_destination_concurrency_limit", "smtp_destination_concurrency_limit"])
@pytest.mark.parametrize("limit", [1, 3])
def test_deliveries_at_once(to_sink, parameter, limit):
    i = to_sink({parameter: limit, "initial_destination_concurrency": "1", "direct_delivery": "no"})
    with Slow(i.port["sink"]) as sink:
        for n in range(9):
            send(i, f"x{n}@far.test")
        sink.wait(9)
        assert 1 <= sink.most <= limit and (SLOW > 1 or sink.most == limit), sink.most


@pytest.mark.parametrize("parameter", ["default_destination_recipient_limit", "smtp_destination_recipient_limit"])
def test_recipients_of_a_delivery(to_sink, parameter):
    i = to_sink({parameter: "2"})
    with Sink(i.port["sink"]) as sink:
        send(i, [f"x{n}@far.test" for n in range(5)])
        sizes = sorted(len(m.recipients) for m in sink.wait(3))
        assert sizes == [1, 2, 2]


@pytest.mark.parametrize("parameter", ["default_destination_rate_delay", "smtp_destination_rate_delay"])
def test_pause_between_deliveries(to_sink, parameter):
    i = to_sink({parameter: "1s", "direct_delivery": "no"})
    with Slow(i.port["sink"], 0) as sink:
        for n in range(3):
            send(i, f"x{n}@far.test")
        sink.wait(3)
        gaps = [b - a for a, b in zip(sink.ends, sink.ends[1:])]
        assert min(gaps) > 0.9, gaps


def test_inodes_that_the_queue_leaves(make_instance):
    i = make_instance(main={"queue_minfree_inodes": "1000000000000", "direct_delivery": "no"})
    send(i, U1)  # it looks when something comes
    i.wait_log("queue-space-low")
    with pytest.raises(smtplib.SMTPException, match="452"):
        send(i, U1)


def test_notices(to_sink):
    """How much of the message comes back, who is told of what cannot be returned, and by whom."""
    i = to_sink({"bounce_size_limit": "2000", "notify_classes": "2bounce", "direct_delivery": "no", "double_bounce_sender": "twice",
                 "error_notice_recipient": U2}, users=TWO)
    with Sink(i.port["sink"], replies={"RCPT": "550 5.1.1 no"}):
        for size in (1, 60):
            with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=60 * SLOW) as c:
                c.sendmail(U1, ["bad@far.test"], TEXT + "0123456789012345678901234567890123456789\r\n" * size, ["RET=FULL"])
        small, large = sorted(i.wait_messages(U1, 2), key=len)
        whole, headers = b"Content-Type: message/rfc822", b"Content-Type: text/rfc822-headers"
        assert sorted((whole in m, headers in m, b"0123456789" in m) for m in (small, large)) == [
            (False, True, False), (True, False, True)]
        send(i, "bad@far.test", sender="gone@far.test")
        [m] = i.wait_messages(U2)
        assert m.startswith(b"Return-Path: <twice@")


# --- the way out ---

def test_name_in_ehlo(to_sink):
    i = to_sink({"smtp_helo_name": "hello.test"})
    with Sink(i.port["sink"]) as sink:
        send(i, "x@far.test")
        sink.wait()
        assert sink.commands[0] == "EHLO hello.test"


@pytest.mark.parametrize("verb,parameter", [("GREETING", "smtp_helo_timeout"), ("EHLO", "smtp_helo_timeout"), ("MAIL", "smtp_mail_timeout"),
                                            ("RCPT", "smtp_rcpt_timeout"), ("DATA", "smtp_data_init_timeout"),
                                            ("END", "smtp_data_done_timeout"), ("STARTTLS", "smtp_starttls_timeout")])
def test_time_outs(to_sink, verb, parameter):
    i = to_sink({parameter: "1s", "direct_delivery": "no"})
    features = ("STARTTLS",) if verb == "STARTTLS" else ()
    with Sink(i.port["sink"], features=features, replies={verb: HANG}) as sink:
        if verb == "EHLO":
            sink.replies["HELO"] = HANG
        send(i, "x@far.test")
        began = time.monotonic()
        i.wait_log(" delivery .*to=<x@far.test> .*status=deferred .*timed out", seconds=15)
        assert time.monotonic() - began < 10 * SLOW


def test_reuse_of_connections(to_sink):
    i = to_sink({"smtp_connection_reuse_count_limit": "2"})
    with Sink(i.port["sink"]) as sink:
        for n in range(5):
            send(i, "x@far.test")
            sink.wait(n + 1)
        assert sink.connections == 3
    i = to_sink({"smtp_connection_reuse_time_limit": "1s"})
    with Sink(i.port["sink"]) as sink:
        for n in range(2):
            send(i, "x@far.test")
            sink.wait(n + 1)
            time.sleep(1.3)
        assert sink.connections == 2


@pytest.mark.skipif(not HAVE, reason="needs nsd")
@pytest.mark.parametrize("main,status", [({}, "sent"), ({"smtp_mx_address_limit": "1"}, "deferred"),
                                         ({"smtp_connect_timeout": "1s"}, "sent")])
def test_addresses_that_are_tried(make_instance, tmp_path, main, status):
    i = make_instance(start=False, main={"minimal_backoff_time": "1h", **main})
    i.set(smtp_tcp_port=i.port["sink"])
    with Nameserver(tmp_path / "ns", i.port["dns"], {"far.test": "@ MX 10 first\n@ MX 20 second\nfirst A 127.0.0.9\nsecond A 127.0.0.1\n"}):
        i.start()
        with Sink(i.port["sink"]):
            send(i, "x@far.test")
            i.wait_log(f" delivery .*to=<x@far.test> .*status={status}")


@pytest.mark.skipif(not HAVE or not os.path.exists("/proc/net/if_inet6"), reason="needs nsd and IPv6")
@pytest.mark.parametrize("preference", ["ipv4", "ipv6"])
def test_address_preference(make_instance, tmp_path, preference):
    i = make_instance(start=False, main={"inet_protocols": "all", "smtp_address_preference": preference})
    i.set(smtp_tcp_port=i.port["sink"])
    with Nameserver(tmp_path / "ns", i.port["dns"], {"far.test": "@ MX 10 mx\nmx A 127.0.0.1\nmx AAAA ::1\n"}):
        i.start()
        with Sink(i.port["sink"]) as four, Sink(i.port["sink"], "::1") as six:
            for n in range(3):
                send(i, "x@far.test")
            i.wait_log(" delivery .*status=sent", count=3)
            assert (len(four.messages), len(six.messages)) == ((3, 0) if preference == "ipv4" else (0, 3))


def test_no_level_shows_a_password(make_instance):
    i = make_instance(start=False, main={"smtp_sasl_auth_enable": "yes", "smtp_sasl_tls_security_level": "none"})
    hop = f"[127.0.0.1]:{i.port['sink']}"
    i.set(relayhost=hop, smtp_sasl_password_maps=f"inline:{{ {{ {hop} = user:secret }} }}")
    i.start()
    with Sink(i.port["sink"], features=("AUTH PLAIN LOGIN",)) as sink:
        send(i, "x@far.test")
        i.wait_log(" delivery .*status=deferred dsn=4.7.8 .*no mechanism that may be used")
        assert sink.commands in (["EHLO mx.example.test"], ["EHLO mx.example.test", "QUIT"])
