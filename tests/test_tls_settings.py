"""Parameters of TLS that test_tls.py does not turn: what each changes in a handshake, a delivery, or the log."""
import re
import smtplib
import socket
import ssl
import subprocess
import time

import pytest

from instance import SLOW, wait
from sink import Sink
from test_settings import send, to_sink  # noqa: F401
from test_tls import shake

OFFERS = ("PIPELINING", "STARTTLS")
AES128, AES256 = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"
PATIENT = {"minimal_backoff_time": "1h", "smtp_connection_cache_time_limit": "0"}  # a session of its own for each message


def certificate(folder, name):
    """A self-signed one for that name: (certificate, key)."""
    folder.chmod(0o755)
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                    "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-keyout", key, "-out", cert], check=True,
                   capture_output=True)
    return cert, key


def server_context(pair):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    return context


def outcome(i, to):
    """What the log says of the delivery: sent or deferred."""
    send(i, to)
    [line] = i.wait_log(rf" delivery .*to=<{re.escape(to)}> .*status=", 20)
    return re.search(r"status=(\w+)", line)[1]


# --- the way out ---

@pytest.mark.parametrize("main,status", [({}, "deferred"), ({"smtp_tls_cert_file": "both.pem"}, "sent"),
                                         ({"smtp_tls_cert_file": "me.crt", "smtp_tls_key_file": "me.key"}, "sent"),
                                         ({"smtp_tls_cert_file": "you.crt", "smtp_tls_key_file": "you.key"}, "deferred")],
                         ids=["none", "one-file", "two-files", "another"])
def test_certificate_of_the_client(to_sink, tmp_path, main, status):  # noqa: F811
    pair, me = certificate(tmp_path, "sink.test"), certificate(tmp_path, "me")
    certificate(tmp_path, "you")
    (tmp_path / "both.pem").write_text(me[1].read_text() + me[0].read_text())
    (tmp_path / "both.pem").chmod(0o600)
    i = to_sink({"smtp_tls_security_level": "encrypt", **PATIENT, **{k: tmp_path / v for k, v in main.items()}})
    with Sink(i.port["sink"], features=OFFERS) as sink:
        sink.context = server_context(pair)
        sink.context.verify_mode = ssl.CERT_REQUIRED
        sink.context.load_verify_locations(me[0])
        assert outcome(i, "x@far.test") == status
        assert len(sink.messages) == (status == "sent")


def test_names_that_a_certificate_must_have(to_sink, tmp_path):  # noqa: F811
    """The list of the level that is asked for, and no other one."""
    pair = certificate(tmp_path, "sink.test")
    i = to_sink({"smtp_tls_CAfile": pair[0], "default_destination_concurrency_failed_cohort_limit": "1000", **PATIENT})
    verify, secure = "smtp_tls_verify_cert_match", "smtp_tls_secure_cert_match"
    cases = [("verify", {}, "deferred"),  # hostname, which is 127.0.0.1
             ("verify", {verify: "other.test, sink.test"}, "sent"),
             ("verify", {verify: "nexthop"}, "deferred"),
             ("verify", {secure: "sink.test"}, "deferred"),
             ("secure", {}, "deferred"),
             ("secure", {verify: "sink.test"}, "deferred"),
             ("secure", {secure: "sink.test"}, "sent")]
    with Sink(i.port["sink"], features=OFFERS) as sink:
        sink.context = server_context(pair)
        for n, (level, main, status) in enumerate(cases):
            for name in (verify, secure):
                i.main.pop(name, None)
            i.set(smtp_tls_security_level=level, **main)
            i.reload()
            assert outcome(i, f"x{n}@far.test") == status, (level, main)


def test_levels_that_cannot_be_reached_are_named(make_instance, tmp_path):
    pair = certificate(tmp_path, "me")
    both = tmp_path / "both.pem"
    both.write_text(pair[1].read_text() + pair[0].read_text())
    both.chmod(0o600)
    i = make_instance(main={"smtp_tls_cert_file": both, "smtp_tls_policy_maps": "inline:{a.test=none}"}, allow_deaths=True)
    i.log_file.write_text("")
    both.write_text("damaged while it is in use\n")
    i.kill_program("smtp-client")
    for level in ("may", "encrypt", "verify", "fingerprint"):
        i.wait_log(rf"smtp-tls-level.* level={level} reason=", 20)


@pytest.mark.parametrize("level,main,status", [("encrypt", {}, "sent"), ("encrypt", {"tls_ciphers": AES256}, "deferred"),
                                               ("encrypt", {"tls_minimum_version": "tls1.3"}, "deferred"),
                                               ("may", {"tls_minimum_version": "tls1.3", "tls_ciphers": AES256}, "sent")],
                         ids=["default", "ciphers", "version", "may"])
def test_what_is_demanded_of_a_next_hop(to_sink, tmp_path, level, main, status):  # noqa: F811
    """It speaks TLS 1.2 and one cipher; where TLS is not demanded, that is better than the clear."""
    i = to_sink({"smtp_tls_security_level": level, **PATIENT, **main})
    with Sink(i.port["sink"], features=OFFERS) as sink:
        sink.context = server_context(certificate(tmp_path, "sink.test"))
        sink.context.maximum_version = ssl.TLSVersion.TLSv1_2
        sink.context.set_ciphers(AES128)
        assert outcome(i, "x@far.test") == status
        assert [m.tls for m in sink.messages] == ["TLSv1.2"] * (status == "sent")


def test_a_connection_of_before_the_reload(to_sink):  # noqa: F811
    """One that was kept does not get around a level that is stricter now."""
    i = to_sink({"smtp_tls_security_level": "may", "smtp_connection_cache_time_limit": "1h", "minimal_backoff_time": "1h"})
    with Sink(i.port["sink"]) as sink:
        assert [outcome(i, f"x{n}@far.test") for n in range(2)] == ["sent", "sent"] and sink.connections == 1
        i.set(smtp_tls_security_level="encrypt")
        i.reload()
        assert outcome(i, "x2@far.test") == "deferred"
        assert "TLS is required" in i.wait_log("to=<x2@far.test>")[-1]


# --- the way in ---

def handshake(i, service, ciphers):
    """The cipher that TLS 1.2 comes to with a client that offers these, or None."""
    context = i.tls()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    with socket.create_connection(("127.0.0.1", i.port[service]), 20 * SLOW) as s:
        try:
            with context.wrap_socket(s, server_hostname="localhost") as t:
                return t.cipher()[0]
        except (ssl.SSLError, ConnectionError):
            return None


def test_ciphers(make_instance):
    i = make_instance(main={"tls_ciphers": AES256})
    for service in ("imaps", "pop3s", "submissions"):
        assert handshake(i, service, AES256) == AES256
        assert handshake(i, service, AES128) is None
    i.set(tls_ciphers=f"{AES128}:{AES256}")
    i.reload()
    wait(lambda: handshake(i, "imaps", AES128) == AES128, 10, "the other cipher")


def test_life_of_sessions(make_instance):
    i = make_instance(main={"tls_session_lifetime": "2s"})
    context = i.tls()
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def resumed_after(seconds):
        session, _ = shake(i, "imaps", context)
        time.sleep(seconds)
        return shake(i, "imaps", context, session)[1]

    assert resumed_after(0) and not resumed_after(3.1)
    i.set(tls_session_lifetime="0s")
    i.reload()
    wait(lambda: not shake(i, "imaps", context)[0].has_ticket, 10, "a handshake without a ticket")
    assert not resumed_after(0)
    i.set(tls_session_lifetime="1h")
    i.reload()
    wait(lambda: shake(i, "imaps", context)[0].has_ticket, 10, "a ticket")
    assert resumed_after(0)


# --- lines of the log ---

@pytest.mark.parametrize("level,lines", [("1", 3), ("0", 0)])
def test_lines_about_handshakes(to_sink, tmp_path, level, lines):  # noqa: F811
    i = to_sink({"smtpd_tls_loglevel": level, "smtp_tls_loglevel": level, "smtp_tls_security_level": "may"}, all_running=True)
    pair = certificate(tmp_path, "sink.test")
    with Sink(i.port["sink"], features=OFFERS, tls=pair) as sink:
        with smtplib.SMTP("localhost", i.port["smtp"], timeout=20 * SLOW) as c:
            c.starttls(context=i.tls())
            c.sendmail("a@far.test", ["x@far.test"], "Subject: x\r\n\r\nx\r\n")
        assert sink.wait()[0].tls
    shake(i, "imaps", i.tls())
    i.wait_log(" delivery .*status=sent")
    i.wait_log(" disconnect ", count=5)  # four of the start, and this one
    seen = [line for line in i.log().splitlines() if re.search(r" (tls|smtp-tls) .*protocol=TLSv1", line)]
    assert len(seen) == lines, seen


def test_a_certificate_that_cannot_be_used(make_instance, tmp_path):
    """What cannot be is not offered, and who asks is told so: a hang-up behind 220 would keep the mail of that client out."""
    tmp_path.chmod(0o755)
    bad = tmp_path / "bad.pem"
    bad.write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    i = make_instance(main={"smtpd_tls_cert_file": bad, "smtpd_tls_key_file": bad})
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=20 * SLOW) as c:
        c.ehlo("client.test")
        assert not c.has_extn("starttls")
        assert c.docmd("STARTTLS") == (454, b"4.7.0 TLS not available due to temporary reason")
        c.sendmail("a@client.test", ["u1@example.test"], "Subject: in-clear\r\n\r\nx\r\n")
    assert i.wait_log(" certificate-unusable .*remedy=")
