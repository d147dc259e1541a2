"""Every TLS port as a scanner sees it: hellos made by hand, so that what a library would not offer is offered here.

Only TLS 1.2 and 1.3, forward secrecy and AEAD, sane groups and signatures, no compression, renegotiation, heartbeat, early
data, export or RSA key exchange; early ChangeCipherSpec, fallback and tickets of another service are refused; nothing that
was said in clear survives STARTTLS.
"""
import os
import re
import socket
import ssl
import struct
import subprocess

import pytest

from instance import SLOW, Instance

pytestmark = pytest.mark.xdist_group("tls")
PORTS = {"smtp": "smtp", "submission": "smtp", "submissions": None, "imap": "imap", "imaps": None, "pop3": "pop3", "pop3s": None,
         "lmtp": "lmtp"}
SERVICE = {"smtp": "smtpd", "submission": "submission", "submissions": "submission", "imap": "imap", "imaps": "imap", "pop3": "pop3",
           "pop3s": "pop3", "lmtp": "lmtp"}
SAY = {"smtp": (b"EHLO c\r\n", b"STARTTLS\r\n", b"220"), "lmtp": (b"LHLO c\r\n", b"STARTTLS\r\n", b"220"),
       "imap": (b"", b"a STARTTLS\r\n", b"a OK"), "pop3": (b"", b"STLS\r\n", b"+OK")}
STRONG = {0xC02B, 0xC02C, 0xC02F, 0xC030, 0xCCA8, 0xCCA9}  # ECDHE with AES-GCM or ChaCha20-Poly1305
STRONG_13 = {0x1301, 0x1302, 0x1303}
GROUPS = {23, 24, 25, 29, 30, 0x11EC, 0x11EB}  # P-256 P-384 P-521 X25519 X448, hybrids with ML-KEM
SIGNATURES = [0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0807]
HANDSHAKE, ALERT, CCS, HEARTBEAT = 22, 21, 20, 24
PROTOCOL_VERSION, HANDSHAKE_FAILURE, FALLBACK, UNEXPECTED = 70, 40, 86, 10
RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Instance(tmp_path_factory.mktemp("tls") / "i",
                  main={"smtpd_client_connection_count_limit": "0", "smtpd_client_connection_rate_limit": "0"}) as i:
        yield i


def read_answer(s):
    """One reply: to its last line."""
    data = b""
    while not re.search(rb"^(\d{3} |\* OK|a |\+OK|-ERR).*\r\n\Z", data, re.M):
        more = s.recv(4096)
        if not more:
            return data
        data += more
    return data


def connect(i, port, inject=b""):
    """A socket on which the next octet is TLS."""
    s = socket.create_connection(("127.0.0.1", i.port[port]), 30 * SLOW)
    protocol = PORTS[port]
    if protocol:
        read_answer(s)
        hello, start, good = SAY[protocol]
        if hello:
            s.sendall(hello)
            assert b"STARTTLS" in read_answer(s), port
        s.sendall(start + inject)
        assert read_answer(s).startswith(good)
    return s


def counted(width, data):
    return len(data).to_bytes(width, "big") + data


def numbers(values):
    return b"".join(struct.pack(">H", v) for v in values)


def hello(suites, version=0x0303, groups=(29, 23, 24), signatures=SIGNATURES, versions=None, compression=b"\0", extensions=(),
          share=None, session=b""):
    ext = [(10, counted(2, numbers(groups))), (11, b"\1\0"), (13, counted(2, numbers(signatures))), *extensions]
    if versions:
        ext += [(43, counted(1, numbers(versions))), (51, counted(2, share or b""))]
    body = struct.pack(">H", version) + os.urandom(32) + counted(1, session) + counted(2, numbers(suites)) + counted(1, compression)
    if version >= 0x0301:
        body += counted(2, b"".join(struct.pack(">H", kind) + counted(2, data) for kind, data in ext))
    return struct.pack(">BH", HANDSHAKE, min(version, 0x0301)) + counted(2, b"\1" + counted(3, body))


def record(s):
    """(type, content) of the next record; None at the end."""
    head = b""
    try:
        while len(head) < 5:
            more = s.recv(5 - len(head))
            if not more:
                return None
            head += more
        size, data = struct.unpack(">H", head[3:])[0], b""
        while len(data) < size:
            more = s.recv(size - len(data))
            if not more:
                return None
            data += more
    except ConnectionResetError:
        return None
    return head[0], data


class Answer:
    """What the server says to a hello: its ServerHello, or an alert, or nothing."""

    def __init__(self, got):
        self.alert = self.suite = None
        self.retry, self.extensions = False, {}
        if got is None:
            return
        kind, data = got
        if kind == ALERT:
            self.alert = data[1]
            return
        assert kind == HANDSHAKE and data[0] == 2, got
        at = 4
        self.version = struct.unpack_from(">H", data, at)[0]
        self.retry = data[at + 2:at + 34] == RETRY
        at += 34 + 1 + data[at + 34]
        self.suite, self.compression = struct.unpack_from(">HB", data, at)
        end = 4 + int.from_bytes(data[1:4], "big")
        at += 5
        while at + 4 <= end:
            what, size = struct.unpack_from(">HH", data, at)
            self.extensions[what] = data[at + 4:at + 4 + size]
            at += 4 + size


def ask(i, port, data):
    with connect(i, port) as s:
        s.sendall(data)
        return Answer(record(s))


every_port = pytest.mark.parametrize("port", PORTS)


@every_port
def test_versions(server, port):
    for version in 0x0300, 0x0301, 0x0302:
        got = ask(server, port, hello([*STRONG, 0xC013, 0x002F, 0x00FF], version=version))
        assert got.suite is None and got.alert in (PROTOCOL_VERSION, HANDSHAKE_FAILURE, None), (hex(version), got.alert)
    assert ask(server, port, hello(STRONG)).version == 0x0303
    for wanted in [0x0302, 0x0301], [0x7F1C]:
        got = ask(server, port, hello(STRONG_13 | STRONG, versions=wanted))
        assert got.suite is None and got.alert == PROTOCOL_VERSION
    got = ask(server, port, hello(STRONG_13, versions=[0x0304, 0x0303]))
    assert got.extensions[43] == b"\3\4"
    with connect(server, port) as s:  # SSL 2.0
        s.sendall(b"\x80\x2e\1\0\2\0\x15\0\0\0\x10" + b"\7\0\xc0\5\0\x80\3\0\x80\1\0\x80\6\0\x40\4\0\x80\2\0\x80" + os.urandom(16))
        got = record(s)
        assert got is None or got[0] == ALERT


@every_port
def test_suites(server, port):
    """Everything that was ever numbered is offered; what the server takes is taken off, until it takes nothing more."""
    offer, taken = [*range(0, 0x100), *range(0xC000, 0xC100), *range(0xCC13, 0xCCB0), 0xD001, 0xD005, 0xFEFF], set()
    while True:
        got = ask(server, port, hello(offer))
        if got.suite is None:
            assert got.alert == HANDSHAKE_FAILURE
            break
        taken.add(got.suite)
        offer.remove(got.suite)
    assert taken and taken <= STRONG, [hex(s) for s in taken]
    offer, taken = [*range(0x1300, 0x1310), 0xC0B4, 0xC0B5, *STRONG], set()
    while True:
        got = ask(server, port, hello(offer, versions=[0x0304]))
        if got.suite is None:
            break
        taken.add(got.suite)
        offer.remove(got.suite)
    assert taken == STRONG_13, [hex(s) for s in taken]


@every_port
def test_groups_and_signatures(server, port):
    assert ask(server, port, hello(STRONG, groups=[g for g in range(1, 40) if g not in GROUPS])).suite is None
    some = {g for g in (*range(1, 40), 256, 257, 258, 0x11EC) if ask(server, port, hello(STRONG_13, groups=[g], versions=[0x0304])).retry}
    assert {23, 29} <= some <= GROUPS, some
    assert ask(server, port, hello(STRONG, signatures=[0x0201, 0x0203, 0x0101, 0x0301])).suite is None  # MD5, SHA-1, SHA-224


@every_port
def test_what_the_hello_gets(server, port):
    got = ask(server, port, hello([*STRONG, 0x00FF], compression=b"\1\0", extensions=[
        (15, b"\1"), (23, b""), (0x3374, b""), (42, b"")]))
    assert got.compression == 0 and 15 not in got.extensions  # no DEFLATE, no heartbeat
    assert got.extensions[0xFF01] == b"\0" and 23 in got.extensions  # secure renegotiation, extended master secret
    assert 42 not in got.extensions and 0x3374 not in got.extensions
    got = ask(server, port, hello(STRONG, compression=b"\1"))
    assert got.suite is None  # null compression is not optional


@every_port
def test_fallback_is_seen(server, port):
    """RFC 7507: a client that comes back with less than it has."""
    got = ask(server, port, hello([*STRONG, 0x5600], version=0x0303))
    assert got.suite is None and got.alert == FALLBACK


def flight(s):
    """The server's first flight of TLS 1.2, up to ServerHelloDone."""
    data = b""
    while not data.endswith(b"\x0e\0\0\0"):
        kind, more = record(s)
        assert kind == HANDSHAKE
        data += more


@every_port
def test_early_records(server, port):
    """ChangeCipherSpec before the keys are there (CVE-2014-0224), a heartbeat, data, a second hello, a record too long."""
    ccs = b"\x14\3\3\0\1\1"
    for what in (ccs, b"\x18\3\3\0\3\1\x40\0", b"\x17\3\3\0\5hello", hello(STRONG), b"\x16\3\3\xff\xff" + b"x" * 65535, b"\x99\3\3\0\1x"):
        with connect(server, port) as s:
            s.sendall(hello(STRONG))
            flight(s)
            try:
                s.sendall(what)
                s.sendall(ccs)
            except (BrokenPipeError, ConnectionResetError):
                continue
            got = record(s)
            assert got is None or got[0] == ALERT and got[1][0] == 2, what[:6]
            assert got is None or record(s) is None


@every_port
def test_nothing_before_tls_counts(server, port):
    """A command in the same segment as STARTTLS is not obeyed after it (CVE-2011-0411)."""
    protocol = PORTS[port]
    if not protocol:
        pytest.skip("TLS from the first octet")
    with connect(server, port, inject={"imap": b"b NOOP\r\n", "pop3": b"CAPA\r\n"}.get(protocol, b"NOOP\r\n")) as s:
        s.settimeout(30 * SLOW)
        try:
            with server.tls().wrap_socket(s, server_hostname="localhost") as t:
                t.sendall({"imap": b"c CAPABILITY\r\n", "pop3": b"NOSUCH\r\n", "lmtp": b"LHLO c\r\n"}.get(protocol, b"EHLO c\r\n"))
                got = t.recv(4096)
                assert got.startswith({"imap": b"* CAPABILITY", "pop3": b"-ERR"}.get(protocol, b"250-")), got
        except (ssl.SSLError, ConnectionResetError):
            pass  # to hang up is an answer too


@every_port
def test_renegotiation_is_refused(server, port):
    words = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port[port]}", "-tls1_2"]
    words += ["-starttls", PORTS[port], "-name", "c"] if PORTS[port] else []
    done = subprocess.run(words, input="R\n", text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60 * SLOW,
                          errors="replace", check=False)
    # "no renegotiation", or what the server says goes on as if the hello had not been
    assert re.search(r"RENEGOTIATING\s+\w+:error:.*(no renegotiation|unexpected record)", done.stdout), done.stdout[-600:]
    assert "Secure Renegotiation IS supported" in done.stdout and "Compression: NONE" in done.stdout


def shake(i, port, context, session=None):
    """(session to keep, was it resumed) after an answer was read, so that tickets have come."""
    with context.wrap_socket(connect(i, port), server_hostname="localhost", session=session) as t:
        t.settimeout(30 * SLOW)
        if PORTS[port] is None and port != "submissions":
            t.recv(4096)
        else:
            t.sendall({"imap": b"c NOOP\r\n", "pop3": b"CAPA\r\n", "lmtp": b"LHLO c\r\n"}.get(PORTS[port], b"EHLO c\r\n"))
            t.recv(4096)
        return t.session, t.session_reused


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_tickets_are_of_one_service(server, version):
    context = server.tls()
    context.minimum_version = context.maximum_version = version
    for port, service in SERVICE.items():
        session, _ = shake(server, port, context)
        assert session.has_ticket, port
        assert shake(server, port, context, session)[1], port
        for other, theirs in SERVICE.items():
            if theirs != service:
                assert not shake(server, other, context, session)[1], (port, other)


@every_port
def test_no_early_data_and_a_sound_certificate(server, port):
    context = server.tls()
    with context.wrap_socket(connect(server, port), server_hostname="localhost") as t:
        der = t.getpeercert(binary_form=True)
        assert t.version() == "TLSv1.3" and t.compression() is None
    text = subprocess.run(["openssl", "x509", "-inform", "DER", "-noout", "-text"], input=der, stdout=subprocess.PIPE, check=True).stdout.decode()
    assert re.search(r"Signature Algorithm: .*(sha256|sha384|SHA256|SHA384|ED25519)", text), text
    bits = int(re.search(r"Public-Key: \((\d+) bit", text)[1])
    assert bits >= (2048 if "rsaEncryption" in text else 256)
    words = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port[port]}", "-tls1_3"]
    words += ["-starttls", PORTS[port], "-name", "c"] if PORTS[port] else []
    done = subprocess.run(words, input="Q\n", text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60 * SLOW,
                          errors="replace", check=False)
    assert "Early data was not sent" in done.stdout and not re.search(r"Max Early Data: [1-9]", done.stdout)
