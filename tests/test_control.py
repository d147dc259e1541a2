"""bulkhead(8) with a running suite: start, status, reload, stop, users, the control socket's permissions."""
import grp
import stat
import os
import re
import shutil
import signal
import smtplib
import socket
import struct
import subprocess
import time

import pytest

from instance import BIN, DAEMONS, wait


def test_start_status_stop(make_instance):
    i = make_instance(start=False)
    for name, password in i.users.items():
        i.add_user(name, password)
    assert i.tool("check").stdout == ""
    i.tool("start")
    try:
        status = i.tool("status")
        for program in ("smtpd", "submission", "login", *DAEMONS):
            assert re.search(rf"^\S+\s+{program}\s+\d+ ready", status.stdout, re.M), status.stdout
        again = i.tool("start")
        assert "the suite runs already" in again.stderr
        with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=20) as s:
            assert s.noop()[0] == 250
    finally:
        i.tool("stop")
    assert not i.processes()
    assert i.tool("status", check=False).returncode == 69
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", i.port["smtp"]), 2)


def test_start_refuses_a_bad_configuration(make_instance):
    i = make_instance(start=False)
    i.set(smtpd_timeout="soon")
    done = i.tool("start", check=False)
    assert done.returncode == 78
    assert re.search(r"main.cf:\d+: smtpd_timeout = soon: 'soon' is not a time", done.stderr)
    assert "not started: correct the configuration" in done.stderr


def test_reload_refuses_a_bad_configuration_whole(instance):
    def banner():
        with socket.create_connection(("127.0.0.1", instance.port["smtp"]), 10) as s:
            return s.makefile().readline()

    instance.set(smtpd_banner="$myhostname first")
    assert instance.reload().returncode == 0
    assert banner() == "220 mx.example.test first\n"
    instance.set(smtpd_banner="$myhostname second", mydestinaton="x")
    done = instance.tool("reload", check=False)
    assert done.returncode == 1
    assert re.search(r"main.cf:\d+: unknown parameter mydestinaton: did you mean mydestination\?", done.stdout)
    assert "reload refused: the running configuration goes on" in done.stdout
    assert "first" in banner()
    del instance.main["mydestinaton"]
    instance.write()
    instance.reload()
    assert "second" in banner()


def test_check_of_a_running_instance(instance):
    """Its own ports are not in the way."""
    done = instance.tool("check")
    assert (done.returncode, done.stdout) == (0, "")


def test_users_of_a_running_instance(instance):
    instance.add_user("carol@example.test", "geheim", "sender=c@example.test")
    assert instance.home("carol@example.test").is_dir()
    assert "carol@example.test" in instance.tool("user", "list").stdout
    assert instance.tool("user", "check", "carol@example.test", input="geheim\n").returncode == 0
    assert instance.tool("user", "check", "carol@example.test", input="falsch\n", check=False).returncode == 1
    instance.tool("user", "del", "carol@example.test")
    assert instance.tool("user", "show", "carol@example.test", check=False).returncode == 1


def test_security_lists_every_process(instance):
    before = dict(instance.processes())
    text = instance.tool("security").stdout
    for pid, argv in instance.processes():
        if pid not in before:
            continue  # a child that came after it was asked
        assert re.search(rf"^\s*{pid} ", text, re.M), (pid, argv, text)


def test_mailq(instance):
    env = {**os.environ, "MAIL_CONFIG": str(instance.etc)}
    done = subprocess.run([BIN / "mailq"], env=env, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == instance.tool("queue", "list").stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_an_answer_that_cannot_be_written(instance):
    with open("/dev/full", "w") as full:
        done = subprocess.run([BIN / "bulkhead", "-c", instance.etc, "status"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (74, "bulkhead: cannot write the output: No space left on device\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_control_socket_is_for_admins(instance):
    """Another user gets no answer, whatever the request says about the uid."""
    def as_nobody():
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)

    bin_copy = instance.folder / "bulkhead"
    shutil.copy(BIN / "bulkhead", bin_copy)
    done = subprocess.run([bin_copy, "-c", instance.etc, "status"], capture_output=True, text=True, preexec_fn=as_nobody)
    assert done.returncode == 69 and "become root, or a member of admin_group" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_an_admin_makes_users_with_their_homes(make_instance):
    """A member of admin_group is not root: master makes the home, below virtual_mailbox_base and nowhere else."""
    i = make_instance(main={"admin_group": "daemon"})
    bin_copy = i.folder / "bulkhead"
    shutil.copy(BIN / "bulkhead", bin_copy)
    group = grp.getgrnam("daemon").gr_gid

    def as_admin():
        os.setgroups([group])
        os.setgid(65534)
        os.setuid(65534)

    def tool(*words):
        return subprocess.run([bin_copy, "-c", i.etc, *map(str, words)], capture_output=True, text=True, preexec_fn=as_admin,
                              input="pass\n")

    done = tool("user", "add", "a1@example.test")
    assert done.returncode == 0 and "cannot be made" not in done.stderr, done.stderr
    st = os.lstat(i.home("a1@example.test"))
    assert stat.S_ISDIR(st.st_mode) and stat.S_IMODE(st.st_mode) == 0o700 and st.st_uid >= i.uid_base
    assert i.wait_log("home-made .*a1")
    (i.mail / "example.test" / "link").symlink_to("/tmp")
    outside = i.folder / "outside"
    for n, home in enumerate((outside, i.mail / ".." / "outside", i.home("u1@example.test") / "x", i.mail / "example.test/link/x")):
        done = tool("user", "add", f"b{n}@example.test", f"home={home}")
        assert "cannot be made" in done.stderr or done.returncode, (home, done)
    assert not outside.exists() and not os.path.exists("/tmp/x")
    assert not (i.home("u1@example.test") / "x").exists()
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=60) as c:
        c.sendmail("x@far.test", ["a1@example.test"], "Subject: x\r\n\r\nx\r\n")
    i.wait_messages("a1@example.test")


def test_control_socket_takes_no_rubbish(instance):
    path = str(instance.run / "control")
    for data in (b"", b"\0", b"x" * 65000, struct.pack("<HI", 9, 1), os.urandom(100)):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.settimeout(10)
            s.connect(path)
            try:
                s.send(data)
                s.recv(65536)
            except OSError:
                pass
    time.sleep(0.1)
    assert instance.process.poll() is None
    assert instance.tool("status").returncode == 0
    assert instance.tool("queue", "nonsense", check=False).returncode not in (0, 70)
    assert instance.tool("user", "nonsense", check=False).returncode != 0


def test_queue_verbs_lose_nothing(instance):
    """A held message that is released stays until it is sent; its envelope was only on the disk meanwhile."""
    with smtplib.SMTP("127.0.0.1", instance.port["smtp"], timeout=20) as s:
        s.sendmail("u1@example.test", ["a@remote.test", "u1@example.test"], "Subject: x\r\n\r\nbody \x9b31m\r\n".encode())
    qid = re.search(r"qid=(\S+)", instance.wait_log("smtp-message")[0])[1]
    for words, text in ((("hold", qid), "held"), (("release", qid), "deferred|ready|waiting"), (("flush",), "remote.test"),
                        (("hold", "remote.test"), "held"), (("release", "-a"), "remote.test"),
                        (("requeue", qid), "remote.test")):
        assert instance.tool("queue", *words).stdout == "1 message\n", words
        listed = instance.tool("queue", "list").stdout
        assert qid in listed and re.search(text, listed), (words, listed)
    shown = instance.tool("queue", "show", qid).stdout
    assert shown.startswith(f"id: {qid}\n")
    assert "body" in shown and "\x9b" not in shown, "what a stranger wrote moves no terminal"
    for option, text in (("-d", r"      1 remote\.test: waiting=1 ready=0 running=0 .*\n"), ("-s", r"      1 u1@example\.test\n"),
                         ("-r", r'      1 "4\.4\.3 no answer from DNS.*"\n')):
        wait(lambda: re.search(text, instance.tool("queue", "list", option).stdout), 20, f"queue list {option}")
    assert instance.tool("queue", "delete", "-s", qid, check=False).returncode == 64  # counts are of a list
    assert instance.tool("queue", "delete", qid).stdout == "1 message\n"
    assert instance.tool("queue", "list").stdout == "The queue is empty.\n"
    assert instance.tool("queue", "delete", qid, check=False).returncode == 1


def test_status_in_order_and_who_is_silent(instance):
    rows = [line.split() for line in instance.tool("status").stdout.splitlines()[1:]]
    names = [r[0] for r in rows if not r[0].endswith(":")]
    numbers = [re.match(r"[^[]+\[([^]]+)\]", r[0])[1] for r in rows if "]:" in r[0]]
    assert numbers == [n for n in names if n in numbers] and "qmgr" in numbers
    (pid,) = instance.pids("bounce")
    os.kill(pid, signal.SIGSTOP)
    try:
        assert "bounce[bounce]: no answer within a second\n" in instance.tool("status").stdout
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "no answer" not in instance.tool("status").stdout


def asked_while_one_dies(i, words):
    """What a command that asks all daemons prints, whose answer did not wait for one that died meanwhile; and that one's pid."""
    for _ in range(5):  # a busy machine may take its time; nobody answers in less than a second while one is waited for
        (pid,) = i.pids("bounce")
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as asker:
            time.sleep(0.3)
            os.kill(pid, signal.SIGKILL)
            out = asker.communicate()[0]
        took = time.monotonic() - began
        if took < 0.9:
            break
        wait(lambda: re.search(r"^bounce +bounce +\d+ ready", i.tool("status", check=False).stdout, re.M), 20, "bounce")
    assert took < 0.9, (took, out)
    return out, pid


def test_status_does_not_wait_for_the_dead(make_instance):
    i = make_instance(allow_deaths=True)
    out, pid = asked_while_one_dies(i, [BIN / "bulkhead", "-c", i.etc, "status"])
    assert f" {pid} " not in out and "\nqmgr[qmgr]:" in out


@pytest.mark.parametrize("words", [("bogus",), (), ("status", "x"), ("reload", "now"), ("map",), ("queue", "bogus"),
                                   ("trace",), ("--versions",)])
def test_wrong_words(make_instance, words):
    i = make_instance(start=False)
    done = i.tool(*words, check=False)
    assert done.returncode == (69 if words[:1] == ("queue",) else 64), done
    assert done.stderr and len(done.stderr.splitlines()) < 20


def test_help(make_instance):
    i = make_instance(start=False)
    for words in (("help",), ("-h",)):
        done = i.tool(*words)
        assert all(f"\n  {c} " in done.stdout for c in ("check", "conf", "start", "status", "queue", "security")) and not done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_a_stranger_is_told_what_is_in_the_way(instance):
    def as_nobody():
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)

    bin_copy = instance.folder / "bulkhead"
    shutil.copy(BIN / "bulkhead", bin_copy)

    def run(*words):
        done = subprocess.run([bin_copy, "-c", instance.etc, *words], capture_output=True, text=True, preexec_fn=as_nobody)
        return done.returncode, done.stdout + done.stderr

    for words in (("status",), ("queue", "list"), ("user", "list"), ("stop",), ("upgrade",)):
        status, text = run(*words)
        assert status == 69 and "Permission denied: become root, or a member of admin_group" in text, (words, status, text)
    assert "the suite runs already" in run("start")[1]
    assert "Address already in use" not in run("check")[1]
    assert instance.tool("status").returncode == 0
