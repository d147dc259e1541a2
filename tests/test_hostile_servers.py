"""Plays tests/sessions/servers.txt: smtp-client against servers that lie, talk out of turn or do not end."""
import concurrent.futures
import re
import smtplib
import socket
import ssl
import subprocess

import pytest

import session_player as sp
from instance import SLOW, Instance

SESSIONS = sp.load("servers.txt")[0]
GROUP = pytest.mark.xdist_group("hostile-servers")


class HostileServer:
    """Takes one connection and follows its script; further ones are closed."""

    def __init__(self, host, port, lines, context):
        self.lines, self.context, self.host = lines, context, host
        self.listener = socket.create_server((host, port), backlog=5)
        self.sock = self.file = None

    def line(self):
        try:
            line = self.file.readline()
            return line.decode(errors="replace").rstrip("\r\n") if line else "EOF"
        except (ConnectionError, ssl.SSLError):
            return "EOF"

    def expect(self, want, skip):
        got = self.line()
        while skip and not got.startswith(want) and got != "EOF":
            got = self.line()
        assert got.startswith(want), f"C: {want}: {got[:200]!r}"

    def run(self):
        self.listener.settimeout(60 * SLOW)
        self.sock, _ = self.listener.accept()
        self.listener.close()
        self.sock.settimeout(60 * SLOW)
        self.file, skip = self.sock.makefile("rb"), False
        for line in self.lines:
            if line == "TLS":
                self.sock = self.context.wrap_socket(self.sock, server_side=True)
                self.file = self.sock.makefile("rb")
            elif line.startswith("C: "):
                if line[3:] != "...":
                    self.expect(line[3:], skip)
                skip = line[3:] == "..."
            elif line.startswith("S"):
                data = sp.octets(line[3:]) if line[1] == ">" else line[3:].encode() + b"\r\n"
                try:
                    self.sock.sendall(data)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # it has seen enough
        self.sock.close()


def play(i, number, session, context):
    host = f"127.20.{number // 200}.{number % 200 + 1}"
    server = HostileServer(host, i.port["sink"], [x for x in session.lines if not x.startswith("D: ")], context)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        script = pool.submit(server.run)
        with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=60 * SLOW) as client:
            client.ehlo("client.test")
            assert client.mail("s@example.test")[0] == 250
            assert client.rcpt(f"r@s{number}.test")[0] == 250
            client.data(f"Subject: to {session.name}\r\n\r\nbody\r\n")
        script.result()
    for line in session.lines:
        if line.startswith("D: "):
            status, *words = line[3:].split()
            found = i.wait_log(rf" delivery .*to=<r@s{number}\.test> .*status={status}", 30)
            assert all(w in found[-1] for w in words), found[-1]
            assert not re.search(r"[^ -~]", found[-1]), repr(found[-1])


@pytest.fixture(scope="module")
def outcome(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("servers")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", "/CN=server.test", "-keyout", "key", "-out", "cert"], cwd=folder, check=True,
                   stderr=subprocess.DEVNULL)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    i = Instance(folder / "i", main={"minimal_backoff_time": "1h", "direct_delivery_deadline": "5s"})
    to = ", ".join(f"s{n}.test=smtp:[127.20.{n // 200}.{n % 200 + 1}]:{i.port['sink']}" for n in range(len(SESSIONS)))
    i.set(smtp_client_ports=i.port["sink"], transport_maps=f"inline:{{ {to} }}")
    wanted = [item.callspec.params["number"] for item in request.session.items
              if item.module is request.module and hasattr(item, "callspec")]
    with i:
        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            jobs = {n: pool.submit(play, i, n, SESSIONS[n], context) for n in wanted}
        yield {n: job.exception() for n, job in jobs.items()}


@GROUP
@pytest.mark.parametrize("number", range(len(SESSIONS)), ids=[s.name for s in SESSIONS])
def test_server(outcome, number):
    if outcome[number]:
        raise outcome[number]
