"""A reload that changes where a service listens, or takes a service away and brings it back: no client finds the port closed, no
session is cut, and the log names no trouble."""
import os
import pathlib
import re
import smtplib
import socket
import threading
import time

import pytest

from instance import SLOW
from test_local import wait


class Knocking(threading.Thread):
    """Connects again and again and is greeted each time."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.over, self.greeted, self.failed = port, False, 0, []

    def run(self):
        while not self.over:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 30 * SLOW) as s:
                    line = s.makefile("rb").readline()
                    s.sendall(b"QUIT\r\n")
                assert line.startswith(b"220 "), line
                self.greeted += 1
            except (OSError, AssertionError) as e:
                self.failed.append(repr(e))


def refused(address, port):
    try:
        socket.create_connection((address, port), 5 * SLOW).close()
    except ConnectionRefusedError:
        return True
    return False


def greeted(address, port):
    with socket.create_connection((address, port), 20 * SLOW) as s:
        return s.makefile("rb").readline().startswith(b"220 ")


def parent(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def acceptors(i):
    return [pid for pid in i.pids("smtpd") if parent(pid) == i.process.pid]


ROWS = {"row": ("127.0.0.1:{}", "{}", {"inet_interfaces": "all"}, {"inet_interfaces": "all"}),
        "parameter": ("{}", "{}", {"inet_interfaces": "127.0.0.1"}, {"inet_interfaces": "all"})}


@pytest.mark.parametrize("how", ROWS)
def test_from_one_address_to_all_and_back(make_instance, how):
    one, every, narrow, wide = ROWS[how]
    i = make_instance(start=False, main=narrow)
    port = i.port["smtp"]

    def row(name):
        i.services = [f"{name.format(port)} inet n - y - - smtpd"]

    row(one)
    i.write()
    i.start()
    wait(lambda: not refused("127.0.0.1", port), 20, "the port")
    (pid,) = acceptors(i)
    session = smtplib.SMTP("127.0.0.1", port, timeout=30 * SLOW)
    session.ehlo("c")
    assert session.mail("a@far.test")[0] == 250
    knocking = [Knocking(port) for _ in range(4)]
    for k in knocking:
        k.start()
    for _ in range(3):
        row(every)
        i.set(**wide)
        i.reload()
        wait(lambda: not refused("127.0.0.2", port), 20, "the other address")
        assert greeted("127.0.0.2", port)
        row(one)
        i.set(**narrow)
        i.reload()
        assert refused("127.0.0.2", port)
    before = [k.greeted for k in knocking]
    wait(lambda: all(k.greeted > n + 5 for k, n in zip(knocking, before)), 20, "clients after the last reload")
    for k in knocking:
        k.over = True
    for k in knocking:
        k.join()
    assert [k.failed for k in knocking] == [[]] * 4
    assert session.rcpt("u1@example.test")[0] == 250 and session.data(b"Subject: 1\r\n\r\nstill here\r\n")[0] == 250
    i.wait_messages("u1@example.test")
    assert pid in i.pids("smtpd")
    assert "listen-failed" not in i.log() + (i.folder / "stderr").read_text()
    with pytest.raises(OSError):
        socket.create_server(("127.0.0.1", port))


def heard_of(pid):
    """The descriptors that its loop hears of, and those of them that it has."""
    fds = {int(fd.name): os.readlink(fd) for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir()}
    (loop,) = (fd for fd, what in fds.items() if what == "anon_inode:[eventpoll]")
    heard = {int(n) for n in re.findall(r"^tfd: +(\d+)", pathlib.Path(f"/proc/{pid}/fdinfo/{loop}").read_text(), re.M)}
    return heard, heard & fds.keys()


def test_an_address_that_stays_is_watched_once(make_instance):
    """The loop does not hear of a descriptor that was closed, but whose socket lives on."""
    i = make_instance(start=False, main={"inet_interfaces": "127.0.0.1"})
    port = i.port["smtp"]
    i.services = [f"{port} inet n - y - - smtpd"]
    i.write()
    i.start()
    wait(lambda: not refused("127.0.0.1", port), 20, "the port")
    (pid,) = acceptors(i)
    before = len(heard_of(pid)[0])
    for more in ("127.0.0.1, 127.0.0.2", "127.0.0.3, 127.0.0.1", "127.0.0.1"):
        i.set(inet_interfaces=more)
        i.reload()
        assert greeted("127.0.0.1", port)
    # five seconds for handshakes with what is gone
    wait(lambda: len(heard_of(pid)[1]) <= before, 20, "the end of the former sockets")
    wait(lambda: len(heard_of(pid)[0]) <= before, 3, "the end of what the loop hears of them")


def test_taken_away_and_brought_back(make_instance):
    """The former process has a transaction yet and ends with it; who connects meanwhile is served by a new one."""
    i = make_instance()
    port = i.port["smtp"]
    rows = i.front_ends()
    session = smtplib.SMTP("127.0.0.1", port, timeout=30 * SLOW)
    session.ehlo("c"), session.mail("a@far.test"), session.rcpt("u1@example.test")
    assert session.docmd("DATA")[0] == 354
    i.services = [row for row in rows if f":{port} " not in row]
    i.write()
    i.reload()
    wait(lambda: refused("127.0.0.1", port), 20, "the end of the socket")
    i.services = rows
    i.write()
    i.reload()
    assert greeted("127.0.0.1", port)
    session.send("Subject: 1\r\n\r\nx\r\n.\r\n")
    assert session.getreply()[0] == 250
    i.wait_messages("u1@example.test")
    wait(lambda: i.tool("status").stdout.count(f"127.0.0.1:{port} ") == 1, 20, "the end of the former one")
    assert i.tool("status").returncode == 0


@pytest.mark.skipif(SLOW == 1, reason="AddressSanitizer sees it; a minute is the shortest life of ticket keys")
@pytest.mark.skipif(SLOW == 1, reason="takes a minute, and a sanitizer sees more")
def test_ticket_keys_change_while_a_service_ends(make_instance):
    """A service that was taken away still has a transaction when master draws new keys."""
    i = make_instance(main={"tls_session_lifetime": "1s"})
    session = smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=30 * SLOW)
    session.ehlo("c"), session.mail("a@far.test"), session.rcpt("u1@example.test")
    i.services = [row for row in i.front_ends() if f":{i.port['smtp']} " not in row]
    i.write()
    i.reload()
    for _ in range(62):
        assert i.process.poll() is None, i.tail()
        assert session.noop()[0] in (250, 421)
        time.sleep(1)
    assert i.tool("status").returncode == 0
