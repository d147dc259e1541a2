"""Reload, upgrade in place and crash of master under live sessions: nothing that was begun is cut."""
import imaplib
import os
import pathlib
import poplib
import shutil
import signal
import smtplib
import socket
import sys
import threading
import time

import pytest

from instance import BIN, SLOW, wait
from test_reload import acceptors, greeted, heard_of, refused
from test_tls import shake

BODY = b"From: a@sender.example\r\nSubject: one\r\n\r\nbody\r\n"


class Knocker(threading.Thread):
    """Connects again and again; counts connections that were refused or closed without a greeting."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.stop_now, self.good, self.bad = port, False, 0, []

    def run(self):
        while not self.stop_now:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 10 * SLOW) as s:
                    s.settimeout(10 * SLOW)
                    line = s.recv(200)
                    if line.startswith(b"220"):
                        self.good += 1
                        s.sendall(b"QUIT\r\n")
                        s.recv(100)
                    else:
                        self.bad.append(line)
            except OSError as e:
                self.bad.append(e)
            time.sleep(0.01)


def imap(i):
    m = imaplib.IMAP4("localhost", i.port["imap"])
    m.starttls(i.tls())
    m.login("u1@example.test", "pass1")
    assert m.select()[0] == "OK"
    return m


def begin_transaction(i):
    s = smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=20 * SLOW)
    s.ehlo()
    assert s.docmd("MAIL FROM:<a@sender.example>")[0] == 250
    assert s.docmd("RCPT TO:<u1@example.test>")[0] == 250
    assert s.docmd("DATA")[0] == 354
    s.send(BODY[:20])
    return s


def finish_transaction(s):
    s.send(BODY[20:] + b".\r\n")
    code, text = s.getreply()
    assert code == 250, text


def around(i, act):
    """A transaction under way, an IMAP session and new connections, before, while and after act()."""
    box, smtp, knocker = imap(i), begin_transaction(i), Knocker(i.port["smtp"])
    pid = i.process.pid
    knocker.start()
    time.sleep(0.2)
    act()
    time.sleep(0.3)
    finish_transaction(smtp)
    i.wait_messages("u1@example.test", 1)
    assert box.noop()[0] == "OK"
    assert box.select()[1] == [b"1"]
    assert b"body" in box.fetch("1", "(BODY[])")[1][0][1]
    i.wait_ready()
    knocker.stop_now = True
    knocker.join()
    assert knocker.good > 3 and not knocker.bad, (knocker.good, knocker.bad[:5])
    assert i.process.poll() is None and i.process.pid == pid
    # new sessions of every kind work afterwards
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=20) as s:
        s.sendmail("a@sender.example", ["u1@example.test"], BODY)
    i.wait_messages("u1@example.test", 2)
    assert imap(i).select()[1] == [b"2"]
    pop = poplib.POP3("localhost", i.port["pop3"])
    pop.stls(i.tls())
    pop.user("u1@example.test")
    pop.pass_("pass1")
    assert pop.stat()[0] == 2
    pop.quit()
    assert box.logout()[0] == "BYE"


def test_upgrade_in_place(make_instance):
    i = make_instance(all_running=True)
    around(i, lambda: i.tool("upgrade"))


def test_an_old_acceptor_hears_of_no_new_client(make_instance):
    """It has closed the listening socket, which lives on with its successor."""
    i = make_instance(start=False)
    i.services = [f"127.0.0.1:{i.port['smtp']} inet n - y - - smtpd"]
    i.write()
    i.start()
    wait(lambda: not refused("127.0.0.1", i.port["smtp"]), 20, "the port")
    session = smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=30 * SLOW)
    session.ehlo("c"), session.mail("a@far.test"), session.rcpt("u1@example.test")
    (old,) = acceptors(i)
    i.tool("upgrade")
    wait(lambda: len(acceptors(i)) == 2, 20, "the successor")
    assert greeted("127.0.0.1", i.port["smtp"])

    def is_deaf():
        heard, has = heard_of(old)
        return heard == has

    wait(is_deaf, 5, "the end of what it hears of closed sockets")
    assert session.data(b"Subject: 1\r\n\r\nx\r\n")[0] == 250


def left_open(i):
    """The hand-over of an upgrade, if master still has it."""
    links = [os.readlink(fd) for fd in pathlib.Path(f"/proc/{i.process.pid}/fd").iterdir()]
    return [link for link in links if link.startswith("/memfd:upgrade")]


def test_tls_sessions_resume_over_upgrades(make_instance):
    i = make_instance()
    context, ports = i.tls(), ("smtp", "submissions", "imap", "imaps", "pop3s")
    sessions = {port: shake(i, port, context)[0] for port in ports}
    for _ in range(2):
        old = {pid for program in ("smtpd", "submission", "login") for pid in i.pids(program)}
        i.tool("upgrade")
        wait(lambda: not old & {pid for pid, _ in i.processes()}, 20, "the end of the old acceptors")
        i.wait_ready()
        for port in ports:
            assert shake(i, port, context, sessions[port])[1], port
        assert not shake(i, "pop3s", context, sessions["imaps"])[1], "a ticket of another service"
        assert not left_open(i)


FORMER = """
import os, sys
fd = os.memfd_create("upgrade", 0)
os.write(fd, sys.argv[1].encode())
os.environ["BULKHEAD_UPGRADE_FD"] = str(fd)
os.set_inheritable(fd, True)
child = os.fork() or os._exit(0)
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize("keys", [None, "", "ab" * 80, "ab" * 240, "ab" * 400, "ab" * 79, "AB" * 80, "ab" * 79 + "a/", "x"])
def test_a_hand_over_of_another_version(make_instance, keys):
    """An older master hands no keys over, a newer one perhaps more of them, and lines that nobody knows here."""
    i = make_instance(start=False)
    name = f"127.0.0.1:{i.port['imaps']}"
    lines = ["", "future 1 2 three", "tickets", "tickets login", f"tickets nobody {'ab' * 80} {name}"]
    lines += [] if keys is None else [f"tickets login {keys} {name}"]
    i.command = [sys.executable, "-c", FORMER, "\n".join([*lines, ""])]
    i.start()
    context = i.tls()
    session, resumed = shake(i, "imaps", context)
    assert session.has_ticket and not resumed
    assert shake(i, "imaps", context, session)[1]
    assert not left_open(i)


def test_who_ended_while_masters_changed_is_reaped(make_instance):
    i = make_instance(start=False)
    i.command = [sys.executable, "-c", FORMER, ""]
    i.start()
    children = pathlib.Path(f"/proc/{i.process.pid}/task/{i.process.pid}/children")
    wait(lambda: not any("\nState:\tZ" in pathlib.Path(f"/proc/{pid}/status").read_text() for pid in children.read_text().split()), 10,
         "the end of the zombie")


def own_programs(make_instance, tmp_path, script, **more):
    """An instance that goes on with a script in the place of master at an upgrade."""
    programs = tmp_path / "bin"
    shutil.copytree(BIN, programs, symlinks=True)
    (programs / "master").unlink()
    (programs / "master").write_text(script)
    for d in programs / "master", programs, tmp_path:
        d.chmod(0o755)
    return make_instance(main={"daemon_directory": programs}, **more)


def test_a_new_program_that_hangs_is_refused(make_instance, tmp_path):
    i = own_programs(make_instance, tmp_path, "#!/bin/sh\nsleep 3000\nexit 0\n")
    done = i.tool("upgrade", check=False)
    assert done.returncode == 1 and "master did not end within 10 s (-t)" in done.stdout + done.stderr
    i.wait_log(r"upgrade-refused .*reason=\"it did not end in time \(-t\)\"")
    assert i.tool("status").returncode == 0
    assert not [argv for _, argv in i.processes() if "sleep" in argv]


def test_an_upgrade_to_a_broken_configuration_is_refused(make_instance):
    i = make_instance()
    i.set(mesage_size_limit=1)
    os.kill(i.process.pid, signal.SIGUSR2)
    i.wait_log(r"upgrade-refused .*reason=\"it finds errors in the configuration \(-t\)\" remedy=\"run `bulkhead check`")
    done = i.tool("upgrade", check=False)
    assert done.returncode == 1 and "finds errors in the configuration: run bulkhead check. The running suite goes on." in done.stdout + done.stderr
    assert i.tool("status").returncode == 0


def test_an_upgrade_that_fails_leaves_nothing_open(make_instance, tmp_path):
    i = own_programs(make_instance, tmp_path, "#!/bin/sh\nrm \"$0\"\n", allow_deaths=True)
    i.tool("upgrade")
    i.wait_log(r"upgrade-failed reason=\"(?i:no such file)")
    assert not left_open(i)
    i.wait_ready()  # each of them is started anew


def test_reload_under_sessions(make_instance):
    i = make_instance(all_running=True)
    around(i, i.reload)


def test_new_settings_after_reload(make_instance):
    i = make_instance()
    i.set(message_size_limit=12345)
    i.reload()
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=20) as s:
        s.ehlo()
        assert s.esmtp_features["size"] == "12345"


def test_master_killed(make_instance):
    """kill -9 of master: the daemons see it, end what they have, and a new master starts at once."""
    i = make_instance(allow_deaths=True, all_running=True)
    i.process.kill()
    i.process.wait()
    end = time.monotonic() + 10 * SLOW
    while i.processes() and time.monotonic() < end:
        time.sleep(0.05)
    assert not i.processes()
    i.stderr.close()
    i.start()
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=20) as s:
        s.sendmail("a@sender.example", ["u1@example.test"], BODY)
    i.wait_messages("u1@example.test", 1)
