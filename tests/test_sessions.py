"""Plays the sessions of tests/sessions/*.txt against one instance; the format stands at their head."""
import base64
import pathlib
import re

import pytest

from instance import Instance
from test_smtp import Wire

HERE = pathlib.Path(__file__).resolve().parent


def octets(text):
    """The escapes of a C> line."""
    text = re.sub(r"\{(\d+):([^}]*)\}", lambda m: m[2] * int(m[1]), text)
    out = bytearray()
    at = 0
    names = {"r": 13, "n": 10, "0": 0, "\\": 92}
    while at < len(text):
        if text[at] == "\\" and text[at + 1] == "x":
            out.append(int(text[at + 2:at + 4], 16))
            at += 4
        elif text[at] == "\\":
            out.append(names[text[at + 1]])
            at += 2
        else:
            out += text[at].encode()
            at += 1
    return bytes(out)


def sessions():
    """(name, service, lines) of each."""
    found = []
    for path in sorted((HERE / "sessions").glob("*.txt")):
        for line in path.read_text().split("\n"):
            if line.startswith("=== "):
                name, _, service = line[4:].rpartition(" @")
                found.append((name, service, []))
            elif line.strip() and not line.startswith("#"):
                times, _, rest = line.partition(" x ")
                found[-1][2].extend([rest] * int(times) if times.isdigit() else [line])
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    users = {f"u{n}@example.test": f"pass{n}" for n in (1, 2, 3)}
    with Instance(tmp_path_factory.mktemp("sessions") / "i", users=users,
                  main={"smtpd_client_connection_count_limit": "0", "smtpd_error_sleep_time": "0",
                        "auth_failure_delay": "0", "mynetworks": "[::1]/128"}) as i:
        yield i


def check(line, got):
    want = line[3:].encode()
    if want == b"EOF":
        assert got in (b"EOF", b""), f"{line}: {got!r}"
    else:
        assert got.replace(b"\r\n", b"\n").startswith(want), f"{line}: {got[:200]!r}"


def play(i, w, lines):
    ended = False
    for line in lines:
        if line == "TLS":
            w.sock = i.tls().wrap_socket(w.sock, server_hostname="localhost")
            w.file = w.sock.makefile("rb")
        elif line == "LOGIN":
            assert w.say(b"EHLO c\r\n").startswith(b"250-")
            assert w.code(b"AUTH PLAIN " + base64.b64encode(b"\0u1@example.test\0pass1") + b"\r\n") == 235
        elif line.startswith("C:"):
            w.send(line[3:].encode() + b"\r\n")
        elif line.startswith("C>"):
            w.send(octets(line[3:]))
        else:
            assert line.startswith("S: "), line
            try:
                got = w.reply()
            except ConnectionResetError:
                got = b"EOF"
            check(line, got)
            ended = line == "S: EOF"
    return ended


@pytest.mark.parametrize("name,service,lines", sessions(), ids=[f"{s[1]}: {s[0]}" for s in sessions()])
def test_session(server, name, service, lines):
    port, _, plain = service.partition(":")
    w = Wire(server.port[port], greet=not plain, tls=server.tls() if port == "submissions" and not plain else None)
    if not play(server, w, lines):
        assert w.say(b"NOOP still here\r\n").startswith(b"250 2.0.0")
    w.close()
