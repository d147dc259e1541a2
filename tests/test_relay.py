"""The way out: smtp-client and dns in their jails, against a sink, a second instance and a name server."""
import contextlib
import os
import re
import shutil
import smtplib
import subprocess
import time

import pytest

from instance import BIN, wait
from nameserver import HAVE, Nameserver
from sink import CLOSE, Sink

TEXT = "Subject: a test\r\n\r\nfirst line\r\n.a dot\r\n..\r\nlast line\r\n"


def send(instance, recipients, text=TEXT, sender="s@example.test", options=(), rcpt_options=()):
    """The reply to the end of data; raises as smtplib does."""
    with smtplib.SMTP("127.0.0.1", instance.port["smtp"], timeout=60) as client:
        client.ehlo("client.test")
        assert client.mail(sender, options)[0] == 250
        for recipient in [recipients] if isinstance(recipients, str) else recipients:
            code, said = client.rcpt(recipient, rcpt_options)
            assert code == 250, said
        return client.data(text)


def body(message):
    """Without the trace header that the suite puts first."""
    content = message.content if hasattr(message, "content") else message
    assert content.startswith(b"Received: ")
    return re.sub(rb"\AReceived: [^\r\n]*\r?\n([ \t][^\r\n]*\r?\n)*", b"", content)


PATIENT = {"direct_delivery_deadline": "10s"}  # refusals of the next hop come back even on a slow machine


@pytest.fixture
def to_sink(make_instance):
    """to_sink(main) gives an instance whose relayhost is its sink port."""
    def make(main=None, **options):
        i = make_instance(start=False, **options)
        i.set(**{"relayhost": f"[127.0.0.1]:{i.port['sink']}", **PATIENT, **(main or {})})
        return i.start()
    return make


@pytest.fixture
def named(make_instance, tmp_path):
    """named(zones, main) gives an instance that asks a name server and sends to the sink's port."""
    if not HAVE:
        pytest.skip("needs nsd")
    with contextlib.ExitStack() as stack:
        def make(zones, main=None):
            i = make_instance(start=False)
            stack.enter_context(Nameserver(tmp_path / "ns", i.port["dns"], zones))
            i.set(smtp_tcp_port=i.port["sink"], **PATIENT, **(main or {}))
            return i.start()
        yield make


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cert")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                    "2", "-subj", "/CN=sink.test", "-addext", "subjectAltName=DNS:sink.test", "-keyout", folder / "key",
                    "-out", folder / "cert"], check=True, stderr=subprocess.DEVNULL)
    return folder / "cert", folder / "key"


def delivery(instance, recipient, status, count=1):
    return instance.wait_log(rf" delivery .*to=<{re.escape(recipient)}> .*status={status}", 20, count)[-1]


# --- the plain way ---

def test_content_goes_through_unchanged(to_sink):
    i = to_sink()
    with Sink(i.port["sink"]) as sink:
        code, said = send(i, "r@far.test")
        assert code == 250, said
        [m] = sink.wait()
    assert body(m) == TEXT.encode()
    assert (m.sender, m.recipients) == ("s@example.test", ["r@far.test"])
    assert sink.commands[0] == "EHLO mx.example.test"
    assert not sink.problems
    line = delivery(i, "r@far.test", "sent")
    assert "250 2.0.0 taken" in line and f"relay=127.0.0.1[127.0.0.1]:{i.port['sink']}" in line


def test_null_sender_and_queue_first(to_sink):
    i = to_sink(direct=False)
    with Sink(i.port["sink"]) as sink:
        assert send(i, "r@far.test", sender="")[0] == 250
        [m] = sink.wait()
    assert m.sender == "" and body(m) == TEXT.encode()


def test_one_connection_for_many_messages(to_sink):
    i = to_sink()
    with Sink(i.port["sink"]) as sink:
        for n in range(5):
            assert send(i, f"r{n}@far.test")[0] == 250
        messages = sink.wait(5)
        assert sink.connections == 1
        assert "RSET" not in sink.commands
        assert [m.recipients for m in messages] == [[f"r{n}@far.test"] for n in range(5)]
        i.wait_log("smtp-disconnect", 5)
        end = time.monotonic() + 15
        while "QUIT" not in sink.commands and time.monotonic() < end:
            time.sleep(0.1)
        assert sink.commands[-1] == "QUIT"


def test_large_message(to_sink):
    i = to_sink()
    text = "Subject: large\r\n\r\n" + "".join(f".{n:07} {'x' * 60}\r\n" for n in range(30000))
    with Sink(i.port["sink"]) as sink:
        assert send(i, "r@far.test", text)[0] == 250
        [m] = sink.wait()
    assert body(m) == text.encode()
    assert not sink.problems


def test_server_without_extensions(to_sink):
    i = to_sink()
    with Sink(i.port["sink"], features=(), replies={"EHLO": "502 5.5.1 what is that"}) as sink:
        assert send(i, "r@far.test")[0] == 250
        [m] = sink.wait()
    assert body(m) == TEXT.encode()
    assert [c.split(" ")[0] for c in sink.commands[:5]] == ["EHLO", "HELO", "MAIL", "RCPT", "DATA"]


def test_second_instance(make_instance):
    far = make_instance(main={"myhostname": "far.example.test"})
    near = make_instance(start=False, users={}, main={"virtual_mailbox_domains": "near.test"})
    near.set(relayhost=f"[127.0.0.1]:{far.port['smtp']}", **PATIENT)
    near.start()
    code, said = send(near, "u1@example.test", sender="s@near.test")
    assert code == 250, said
    [raw] = far.wait_messages("u1@example.test")
    text = raw.replace(b"\r\n", b"\n")
    assert text.count(b"\nReceived: ") + text.startswith(b"Received: ") == 2
    assert text.endswith(TEXT.replace("\r\n", "\n").encode())
    # refused there, and said so to our client: no notice needed
    code, said = send(near, "nobody@example.test", sender="s@near.test")
    assert code == 550 and b"5.1.1" in said


# --- per recipient, and later ---

def test_results_per_recipient(to_sink):
    i = to_sink(main={"minimal_backoff_time": "1h"})
    answers = {"<bad@far.test>": "550 5.1.1 nobody of that name", "<later@far.test>": "451 4.2.1 come back"}
    with Sink(i.port["sink"], replies={"RCPT": lambda a: answers.get(a[3:].split(" ")[0])}) as sink:
        code, said = send(i, ["good@far.test", "bad@far.test", "later@far.test"], sender="u1@example.test")
        assert code == 250, said
        [m] = sink.wait()
        assert m.recipients == ["good@far.test"]
        delivery(i, "good@far.test", "sent")
        bad = delivery(i, "bad@far.test", "(failed|bounced)")
        assert "dsn=5.1.1" in bad and "550 5.1.1 nobody of that name (in reply to RCPT TO)" in bad
        later = delivery(i, "later@far.test", "deferred")
        assert "dsn=4.2.1" in later
        assert len(i.wait_messages("u1@example.test", seconds=20)) == 1  # the notice


def test_refusals_at_each_step(to_sink):
    i = to_sink(main={"minimal_backoff_time": "1h"})
    with Sink(i.port["sink"]) as sink:
        for verb, reply in (("MAIL", "552 5.2.3 too fat"), ("RCPT", "553 5.1.3 what"), ("DATA", "554 5.5.0 not now"),
                            ("END", "554 5.7.1 spam")):
            sink.replies = {verb: reply}
            code, said = send(i, "r@far.test")
            assert code >= 500, (verb, said)
            assert reply[4:].encode() in said, (verb, said)
        sink.replies = {}
        assert send(i, "r@far.test")[0] == 250
        assert len(sink.wait()) == 1


def test_deferred_then_sent(to_sink):
    i = to_sink(main={"minimal_backoff_time": "1h"})
    with Sink(i.port["sink"], replies={"END": ["451 4.3.0 try again", None]}) as sink:
        assert send(i, "r@far.test")[0] == 250
        delivery(i, "r@far.test", "deferred")
        i.tool("queue", "flush")
        [m] = sink.wait()
    assert body(m) == TEXT.encode()


def test_nobody_listens(to_sink):
    i = to_sink(main={"minimal_backoff_time": "1h"})
    assert send(i, "r@far.test")[0] == 250
    line = delivery(i, "r@far.test", "deferred")
    assert "Connection refused" in line and "dsn=4.4.1" in line
    with Sink(i.port["sink"]) as sink:
        i.tool("queue", "flush")
        sink.wait()


@pytest.mark.parametrize("verb", ["GREETING", "MAIL", "RCPT", "DATA", "END"])
def test_lost_connections(to_sink, verb):
    i = to_sink(main={"minimal_backoff_time": "1h"})
    with Sink(i.port["sink"], replies={verb: CLOSE}) as sink:
        assert send(i, "r@far.test")[0] == 250
        line = delivery(i, "r@far.test", "deferred")
        assert "dsn=4.4.2" in line, line
        assert ("more than once" in line) == (verb == "END"), line
        sink.replies = {}
        i.tool("queue", "flush")
        assert body(sink.wait()[0]) == TEXT.encode()


def test_client_dies_under_a_message(to_sink):
    i = to_sink(main={"minimal_backoff_time": "1s", "direct_delivery_deadline": "200ms"}, allow_deaths=True)
    with Sink(i.port["sink"], replies={"DATA": ["hang", None]}) as sink:
        with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=60) as client:
            client.ehlo("client.test")
            client.mail("s@example.test")
            client.rcpt("r@far.test")
            assert client.data(TEXT)[0] == 250  # after direct_delivery_deadline: queued
            [pid] = i.pids("smtp-client")
            os.kill(pid, 9)
            [m] = sink.wait()
    assert body(m) == TEXT.encode()


# --- extensions ---

def test_parameters(to_sink):
    i = to_sink()
    with Sink(i.port["sink"], features=("PIPELINING", "SIZE 1000000", "8BITMIME", "DSN", "SMTPUTF8")) as sink:
        assert send(i, "r@far.test", "Subject: x\r\n\r\n\xfc\r\n".encode("latin-1"),
                    options=["BODY=8BITMIME", "RET=HDRS", "ENVID=abc+2B1"],
                    rcpt_options=["NOTIFY=FAILURE,DELAY", "ORCPT=rfc822;R+40far.test"])[0] == 250
        [m] = sink.wait()
        mail, rcpt = m.parameters
        assert re.fullmatch(r"SIZE=\d+ BODY=8BITMIME RET=HDRS ENVID=abc\+2B1", mail)
        assert rcpt == "NOTIFY=FAILURE,DELAY ORCPT=rfc822;R+40far.test"
        assert int(re.search(r"SIZE=(\d+)", mail)[1]) == len(m.content)


def test_too_large_for_the_server(to_sink):
    i = to_sink()
    with Sink(i.port["sink"], features=("PIPELINING", "SIZE 100")) as sink:
        code, said = send(i, "r@far.test")
        assert code >= 500 and b"5.3.4" in said, said
        assert not any(c.startswith("MAIL") for c in sink.commands)


# --- TLS and passwords ---

def test_tls_where_it_is_offered(to_sink, certificate):
    i = to_sink()
    with Sink(i.port["sink"], features=("PIPELINING", "STARTTLS"), tls=certificate) as sink:
        assert send(i, "r@far.test")[0] == 250
        [m] = sink.wait()
    assert m.tls == "TLSv1.3"
    i.wait_log("smtp-tls .*protocol=TLSv1.3")


def test_tls_that_fails_is_left_out(to_sink):
    i = to_sink()
    with Sink(i.port["sink"], features=("PIPELINING", "STARTTLS"), replies={"STARTTLS": "220 but there is none"},
              tls=("/dev/null", "/dev/null")) as sink:
        assert send(i, "r@far.test")[0] == 250
        [m] = sink.wait()
    assert m.tls is None
    assert sink.connections == 2


@pytest.mark.parametrize("level", ["encrypt", "verify"])
def test_tls_required(to_sink, certificate, level):
    i = to_sink(main={"smtp_tls_security_level": level, "minimal_backoff_time": "1h"})
    with Sink(i.port["sink"], features=("PIPELINING",)) as sink:
        assert send(i, "r@far.test")[0] == 250
        assert "dsn=4.7.4" in delivery(i, "r@far.test", "deferred")
        assert not any(c.startswith("MAIL") for c in sink.commands)
        sink.features, sink.tls = ("PIPELINING", "STARTTLS"), certificate
        i.tool("queue", "flush")
        if level == "encrypt":
            assert sink.wait()[0].tls
        else:  # no authority signed that certificate
            assert "dsn=4.7.5" in delivery(i, "r@far.test", "deferred", 2)
            assert not sink.messages


def test_smarthost_with_password(make_instance):
    far = make_instance(main={"myhostname": "smart.example.test"}, users={"u1@example.test": "pass1"})
    near = make_instance(start=False, users={}, main={"virtual_mailbox_domains": "near.test"})
    hop = f"[127.0.0.1]:{far.port['submission']}"
    (near.etc / "passwords").write_text(f"{hop} u1@example.test:pass1\n")
    (near.etc / "passwords").chmod(0o600)
    near.set(relayhost=hop, smtp_sasl_auth_enable="yes", smtp_sasl_password_maps=f"hash:{near.etc}/passwords",
             minimal_backoff_time="1h")
    near.start()
    code, said = send(near, "u1@example.test", sender="u1@example.test")
    assert code == 250, said
    far.wait_messages("u1@example.test")
    far.wait_log("smtp-message .*user=u1@example.test")
    near.wait_log("smtp-tls .*protocol=TLSv1.3")
    # a wrong password: kept and tried again, never sent without
    (near.etc / "passwords").write_text(f"{hop} u1@example.test:wrong\n")
    near.reload()
    time.sleep(3)  # the connection that has logged in is not kept that long
    assert send(near, "u1@example.test", sender="u1@example.test")[0] == 250
    assert "dsn=4.7.8" in delivery(near, "u1@example.test", "deferred")


def test_no_password_without_tls(make_instance):
    i = make_instance(start=False, users={}, main={"virtual_mailbox_domains": "near.test"})
    hop = f"[127.0.0.1]:{i.port['sink']}"
    (i.etc / "passwords").write_text(f"{hop} user:secret\n")
    i.set(relayhost=hop, smtp_sasl_auth_enable="yes", smtp_sasl_password_maps=f"hash:{i.etc}/passwords",
          minimal_backoff_time="1h")
    i.start()
    with Sink(i.port["sink"], features=("PIPELINING", "AUTH PLAIN LOGIN")) as sink:
        assert send(i, "r@far.test")[0] == 250
        assert "dsn=4.7.8" in delivery(i, "r@far.test", "deferred")
        wait(lambda: "QUIT" in sink.commands, 10, "QUIT")
        assert [c.split(" ")[0] for c in sink.commands] == ["EHLO", "QUIT"]


def test_password_over_tls_to_a_sink(make_instance, certificate):
    i = make_instance(start=False, users={}, main={"virtual_mailbox_domains": "near.test"})
    hop = f"[127.0.0.1]:{i.port['sink']}"
    (i.etc / "passwords").write_text(f"{hop} user:secret\n")
    i.set(relayhost=hop, smtp_sasl_auth_enable="yes", smtp_sasl_password_maps=f"hash:{i.etc}/passwords")
    i.start()
    with Sink(i.port["sink"], features=("PIPELINING", "STARTTLS", "AUTH PLAIN"), tls=certificate) as sink:
        assert send(i, "r@far.test")[0] == 250
        [m] = sink.wait()
        assert m.user == ["user", "secret"] and m.tls


# --- LMTP, ports, the jail ---

def test_lmtp(make_instance):
    i = make_instance(start=False)
    i.set(transport_maps=f"inline:{{far.test=lmtp:[127.0.0.1]:{i.port['sink']}}}", relay_domains="far.test",
          smtp_client_ports=i.port["sink"], minimal_backoff_time="1h")
    i.start()
    answers = {"b@far.test": "452 4.2.2 mailbox full"}
    with Sink(i.port["sink"], lmtp=True, replies={"END": lambda a: answers.get(a)}) as sink:
        assert send(i, ["a@far.test", "b@far.test"])[0] == 250
        sink.wait()
        delivery(i, "a@far.test", "sent")
        assert "dsn=4.2.2" in delivery(i, "b@far.test", "deferred")
        assert sink.commands[0].startswith("LHLO ")


def landlock_abi():
    import ctypes
    return ctypes.CDLL(None).syscall(444, None, 0, 1)


@pytest.mark.skipif(landlock_abi() < 4, reason="the kernel cannot restrict ports")
def test_port_outside_of_the_jail(make_instance):
    i = make_instance(start=False)
    i.set(transport_maps=f"inline:{{far.test=smtp:[127.0.0.1]:{i.port['sink']}}}", relay_domains="far.test",
          minimal_backoff_time="1h")
    i.start()
    with Sink(i.port["sink"]) as sink:
        assert send(i, "a@far.test")[0] == 250
        assert "smtp_client_ports" in delivery(i, "a@far.test", "deferred")
        assert sink.connections == 0


def test_source_address(to_sink):
    i = to_sink(main={"smtp_bind_address": "127.0.0.3"})
    with Sink(i.port["sink"]) as sink:
        assert send(i, "r@far.test")[0] == 250
        sink.wait()
        assert sink.peers == ["127.0.0.3"]


def test_policy_of_one_next_hop(make_instance):
    i = make_instance(start=False)
    hop = f"[127.0.0.1]:{i.port['sink']}"
    i.set(relayhost=hop, smtp_tls_policy_maps=f"inline:{{{{{hop}=encrypt}}}}", minimal_backoff_time="1h")
    i.start()
    with Sink(i.port["sink"]) as sink:
        assert send(i, "r@far.test")[0] == 250
        assert "dsn=4.7.4" in delivery(i, "r@far.test", "deferred")
        assert not sink.messages


def test_a_policy_that_comes_later_ends_what_is_open(make_instance):
    """A kept connection without TLS is none for a next hop that has to have it since."""
    i = make_instance(start=False, main=PATIENT)
    hop, table = f"[127.0.0.1]:{i.port['sink']}", i.etc / "policies"
    table.write_text(f"{hop} may\n")
    i.set(relayhost=hop, smtp_tls_policy_maps=f"texthash:{table}", minimal_backoff_time="1h", smtp_connection_cache_time_limit="1h",
          smtp_connection_reuse_time_limit="1h")
    i.start()
    with Sink(i.port["sink"]) as sink:
        assert send(i, "r@far.test")[0] == 250
        assert len(sink.wait()) == 1 and "QUIT" not in sink.commands
        table.write_text(f"{hop} encrypt\n")
        wait(lambda: "QUIT" in sink.commands, 30, "the end of the connection")
        assert send(i, "s@far.test")[0] == 250
        assert "dsn=4.7.4" in delivery(i, "s@far.test", "deferred")
        assert len(sink.messages) == 1


def test_a_source_address_that_is_none(make_instance):
    """It is told by its parameter, and no site looks dead for it."""
    i = make_instance(start=False, direct=False, main={"minimal_backoff_time": "1h", "smtp_bind_address": "192.0.2.77"})
    i.set(relayhost=f"[127.0.0.1]:{i.port['sink']}")
    i.start()
    with Sink(i.port["sink"]) as sink:
        for n in range(3):
            send(i, f"r{n}@far.test")
            line = delivery(i, f"r{n}@far.test", "deferred")
            assert "dsn=4.3.5" in line and "smtp_bind_address = 192.0.2.77" in line, line
        row = i.tool("queue", "list", "-d").stdout
        assert re.search(r"waiting=3 .*window=5 .*sent=0 failed=0$", row, re.M), row
        i.set(smtp_bind_address="127.0.0.3")
        i.reload()
        i.tool("queue", "flush")
        sink.wait(3)


POLICIES = (  # the entry, is there STARTTLS, what becomes of the mail
    ("none", True, "plain"), ("may", True, "tls"), ("may", False, "plain"), ("encrypt", True, "tls"), ("encrypt", False, "4.7.4"),
    ("fingerprint match={bad}|{good}", True, "tls"), ("fingerprint match={bad}", True, "4.7.5"),
    ("fingerprint", True, "names no fingerprint"),
    ("verify match=other.test:sink.test", True, "tls"), ("verify match=other.test", True, "4.7.5"),
    ("secure match=other.test match=.test", True, "tls"), ("secure", True, "4.7.5"), ("secure match=sink.test", False, "4.7.4"),
    ("dane", True, "DANE, which is not there yet"), ("encrypt ciphers=low", True, "attribute other than match="),
    ("strict", True, "does not begin with a TLS level"))


def test_policies_of_next_hops(make_instance, certificate):
    """smtp_tls_policy_maps, every level, each with its own server: what it lets through and what waits."""
    good = subprocess.run(["openssl", "x509", "-in", certificate[0], "-noout", "-fingerprint", "-sha256"], check=True,
                          capture_output=True, text=True).stdout.strip().partition("=")[2]
    i = make_instance(start=False, main={**PATIENT, "smtp_tls_CAfile": certificate[0], "smtp_tls_security_level": "may"})
    policies, transports = i.etc / "policies", i.etc / "transports"
    policies.write_text("".join(f"[127.0.0.{n + 10}]:{i.port['sink']} " + p.format(good=good, bad="00:" + good[3:]) + "\n"
                                for n, (p, _, _) in enumerate(POLICIES)))
    transports.write_text("".join(f"p{n}.test smtp:[127.0.0.{n + 10}]:{i.port['sink']}\n" for n in range(len(POLICIES))))
    i.set(smtp_tls_policy_maps=f"texthash:{policies}", transport_maps=f"texthash:{transports}", smtp_client_ports=i.port["sink"])
    i.start()
    with contextlib.ExitStack() as stack:
        sinks = [stack.enter_context(Sink(i.port["sink"], f"127.0.0.{n + 10}", tls=certificate,
                                          features=("PIPELINING", "STARTTLS") if offered else ("PIPELINING",)))
                 for n, (_, offered, _) in enumerate(POLICIES)]
        for n in range(len(POLICIES)):
            assert send(i, f"r@p{n}.test")[0] == 250
        for n, (policy, _, want) in enumerate(POLICIES):
            if want in ("plain", "tls"):
                [m] = sinks[n].wait()
                assert bool(m.tls) == (want == "tls"), policy
            else:
                line = delivery(i, f"r@p{n}.test", "deferred")
                assert (f"dsn={want}" if want[0] == "4" else want) in line, line
                assert not sinks[n].messages and not any(c.startswith("MAIL") for c in sinks[n].commands), policy


def test_tls_session_is_resumed(to_sink, certificate):
    i = to_sink(main={"smtp_connection_cache_time_limit": "0s"})
    with Sink(i.port["sink"], features=("PIPELINING", "STARTTLS"), tls=certificate) as sink:
        for n in range(2):
            assert send(i, f"r{n}@far.test")[0] == 250
        assert len(sink.wait(2)) == 2 and sink.connections == 2
    lines = i.wait_log("smtp-tls .*resumed=", count=2)
    assert "resumed=no" in lines[0] and "resumed=yes" in lines[1]


@pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="no IPv6 here")
@pytest.mark.parametrize("host", ["::1", "IPv6:::1"])
def test_ipv6(make_instance, host):
    i = make_instance(start=False, main={"inet_protocols": "all"})
    i.set(relayhost=f"[{host}]:{i.port['sink']}")
    i.start()
    with Sink(i.port["sink"], "::1") as sink:
        assert send(i, "r@far.test")[0] == 250
        sink.wait()


# --- DNS ---

ZONE = "@ MX 20 second\n@ MX 10 first\nfirst A 127.0.0.9\nsecond A 127.0.0.1\n"


def test_mx_in_order(named):
    i = named({"far.test": "@ MX 20 second\n@ MX 10 first\nfirst A 127.0.0.1\nsecond A 127.0.0.2\n"})
    with Sink(i.port["sink"]) as sink, Sink(i.port["sink"], "127.0.0.2") as second:
        assert send(i, "r@far.test")[0] == 250
        sink.wait()
        assert second.connections == 0
    assert f"relay=first.far.test[127.0.0.1]:{i.port['sink']}" in delivery(i, "r@far.test", "sent")


def test_mx_falls_through(named):
    i = named({"far.test": ZONE})
    with Sink(i.port["sink"]) as sink:
        assert send(i, "r@far.test")[0] == 250
        sink.wait()
    assert "relay=second.far.test[127.0.0.1]" in delivery(i, "r@far.test", "sent")


def test_mx_falls_through_when_busy(named):
    i = named({"far.test": "@ MX 20 second\n@ MX 10 first\nfirst A 127.0.0.2\nsecond A 127.0.0.1\n"})
    with Sink(i.port["sink"], "127.0.0.2", replies={"GREETING": "421 4.3.2 busy"}) as first, Sink(i.port["sink"]) as sink:
        assert send(i, "r@far.test")[0] == 250
        sink.wait()
        assert first.connections == 1


def test_domain_without_mx(named):
    i = named({"far.test": "@ A 127.0.0.1\n"})
    with Sink(i.port["sink"]) as sink:
        assert send(i, "r@far.test")[0] == 250
        sink.wait()


def test_policy_of_the_domain_above(named):
    """As Postfix has it: .far.test is for all below, a domain's own entry comes first."""
    i = named({"far.test": "a.b A 127.0.0.1\nopen A 127.0.0.1\n@ A 127.0.0.1\n"},
              {"minimal_backoff_time": "1h", "smtp_tls_policy_maps": "inline:{ {.far.test=encrypt}, {open.far.test=may} }"})
    with Sink(i.port["sink"]) as sink:
        assert send(i, "r@a.b.far.test")[0] == 250
        assert "dsn=4.7.4" in delivery(i, "r@a.b.far.test", "deferred")
        for domain in ("open.far.test", "far.test"):
            assert send(i, f"r@{domain}")[0] == 250
        sink.wait(2)


@pytest.mark.parametrize("domain,code", [("null.far.test", b"5.1.10"), ("missing.far.test", b"5.1.2"),
                                         ("empty.far.test", b"5.4.4"), ("loop.far.test", b"5.4.6")])
def test_domains_that_take_no_mail(named, domain, code):
    i = named({"far.test": "null MX 0 .\nempty TXT nothing\nloop MX 5 mx.example.test.\n"})
    reply, said = send(i, f"r@{domain}")
    assert reply >= 500 and code in said, said


def test_dns_does_not_answer(make_instance):
    i = make_instance(main={"minimal_backoff_time": "1h"})
    assert send(i, "r@far.test")[0] == 250
    assert "dsn=4.4.3" in delivery(i, "r@far.test", "deferred")
    i.wait_log("dns-failure .*dns_resolvers")


def test_client_names(make_instance):
    """Received names the client as PTR and A confirm it; loopback needs no question."""
    i = make_instance(main={"smtpd_peername_lookup": "yes"})
    assert send(i, "u1@example.test")[0] == 250
    [raw] = i.wait_messages("u1@example.test")
    assert re.search(rb"Received: from client\.test \(localhost \[127\.0\.0\.1\]\)", raw), raw[:300]


def test_no_descriptors_here_are_no_fault_of_the_site(make_instance, tmp_path):
    """What smtp-client could not even try is no success of the next hop and no failure of it."""
    programs, script = tmp_path / "bin", tmp_path / "bin" / "smtp-client"
    shutil.copytree(BIN, programs, symlinks=True)
    script.rename(programs / "real")
    tmp_path.chmod(0o755)

    def limit(files):
        script.write_text(f'#!/bin/sh\nulimit -n {files}\nexec {programs}/real "$@"\n')
        script.chmod(0o755)

    limit(1000)
    i = make_instance(start=False, direct=False, main={"daemon_directory": programs, "minimal_backoff_time": "1h"})
    i.set(relayhost=f"[127.0.0.1]:{i.port['sink']}", smtp_connection_cache_time_limit="0")
    i.start()
    [pid] = i.pids("real")
    needs = len(os.listdir(f"/proc/{pid}/fd"))
    i.stop()
    limit(needs)
    i.start()
    with Sink(i.port["sink"]) as sink:
        for n in range(3):
            send(i, f"r{n}@far.test")
            line = delivery(i, f"r{n}@far.test", "deferred")
            assert "dsn=4.3.0" in line and "Too many open files here; raise the limits of open files" in line, line
        row = i.tool("queue", "list", "-d").stdout
        assert re.search(r"waiting=3 .*window=5 .*sent=0 failed=0$", row, re.M), row
        assert not sink.connections
        limit(1000)
        i.allow_deaths = True
        i.kill_program("real")
        wait(lambda: i.pids("real"), 10, "another smtp-client")
        i.wait_ready()
        i.tool("queue", "flush")
        assert len(sink.wait(3)) == 3
