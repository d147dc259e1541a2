"""Parameters of the delivery to system users that test_local.py does not turn."""
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time

import pytest

from instance import wait
from test_local import DOMAIN, maildir, root_only, send, start, users  # noqa: F401

pytestmark = root_only


def spool_of(tmp_path):
    spool = tmp_path / "spool"
    spool.mkdir()
    spool.chmod(0o1777)
    return spool


@pytest.mark.parametrize("locks,dotlock,fcntl_lock", [("fcntl, dotlock", True, False), ("fcntl, dotlock", False, True),
                                                      ("fcntl", False, True), ("dotlock", True, False)])
def test_a_mailbox_file_that_another_program_has_locked(users, make_instance, tmp_path, locks, dotlock, fcntl_lock):
    """It waits for each kind that the parameter names, and for no other."""
    name, spool = users.add(), spool_of(tmp_path)
    i = start(make_instance, home_mailbox="", mail_spool_directory=spool, mailbox_lock_timeout="2s", mailbox_delivery_lock=locks,
              direct_delivery="no", minimal_backoff_time="1h")
    box, other = spool / name, users.add()
    box.touch()
    shutil.chown(box, name, name)
    with open(box, "r+") as f:  # as mutt does it: fcntl, and a file beside it
        if fcntl_lock:
            fcntl.lockf(f, fcntl.LOCK_EX)
        if dotlock:
            (spool / f"{name}.lock").touch()
        send(i, f"{name}@{DOMAIN}")
        i.wait_log(rf" delivery .*to=<{name}@.*status=deferred.*locked by another program", 20)
        send(i, f"{other}@{DOMAIN}")  # nobody else waits
        wait(lambda: (spool / other).exists() and "hello" in (spool / other).read_text(), 10, "the other's mail")
        assert box.read_text() == ""
    (spool / f"{name}.lock").unlink(missing_ok=True)
    i.tool("queue", "flush")
    wait(lambda: "hello" in box.read_text(), 20, "the message")


@pytest.mark.parametrize("locks,dotlock", [("fcntl", True), ("dotlock", False)])
def test_locks_that_do_not_count(users, make_instance, tmp_path, locks, dotlock):
    name, spool = users.add(), spool_of(tmp_path)
    i = start(make_instance, home_mailbox="", mail_spool_directory=spool, mailbox_lock_timeout="60s", mailbox_delivery_lock=locks)
    box = spool / name
    box.touch()
    shutil.chown(box, name, name)
    with open(box, "r+") as f:
        if dotlock:
            (spool / f"{name}.lock").touch()
        else:
            fcntl.lockf(f, fcntl.LOCK_EX)
        send(i, f"{name}@{DOMAIN}")
        wait(lambda: "hello" in box.read_text(), 10, "the message")


def test_a_stale_lock_is_removed(users, make_instance, tmp_path):
    name, spool = users.add(), spool_of(tmp_path)
    i = start(make_instance, home_mailbox="", mail_spool_directory=spool, stale_lock_time="100s", mailbox_lock_timeout="20s")
    lock = spool / f"{name}.lock"
    lock.touch()
    shutil.chown(lock, name, name)
    os.utime(lock, (time.time() - 101, time.time() - 101))
    send(i, f"{name}@{DOMAIN}")
    wait(lambda: (spool / name).exists() and "hello" in (spool / name).read_text(), 15, "the message")
    assert not lock.exists()


def test_forward_path(users, make_instance):
    a, b = users.add(), users.add()
    i = start(make_instance, recipient_delimiter="+", forward_path="$home/.elsewhere${recipient_delimiter}${extension}, $home/.elsewhere")
    users.write(a, ".forward", f"nobody-there@{DOMAIN}\n")
    users.write(a, ".elsewhere", f"{b}\n")
    users.write(a, ".elsewhere+x", f"\\{a}\n")
    send(i, f"{a}@{DOMAIN}")
    maildir(users.homes[b])
    send(i, f"{a}+x@{DOMAIN}")
    maildir(users.homes[a])


@pytest.mark.parametrize("parameter,kind", [("allow_mail_to_commands", "program"), ("allow_mail_to_files", "file")])
def test_programs_and_files_that_are_not_allowed(users, make_instance, parameter, kind):
    a = users.add()
    out = users.homes[a]  # the only place that a delivery reaches
    target = {"program": f"|/usr/bin/tee {out}/got", "file": f"{out}/got"}[kind]
    i = start(make_instance, aliases=f'root: {a}\nit: "{target}"\n', **{parameter: "forward"}, direct_delivery="no")
    send(i, f"it@{DOMAIN}")
    [line] = i.wait_log(rf" delivery .*to=<it@{DOMAIN}> .*status=(deferred|bounced)")
    assert parameter in line, line
    users.write(a, ".forward", (f'"{target}"' if kind == "program" else target) + "\n")
    send(i, f"{a}@{DOMAIN}")
    wait(lambda: (out / "got").exists() and "hello" in (out / "got").read_text(), 10, kind)


def test_limits_of_programs(users, make_instance):
    """Of memory, of processes, and of what is kept of its words."""
    a = users.add()
    i = start(make_instance, command_memory_limit="64M", command_process_limit="77", command_output_limit="1K", direct_delivery="no")
    users.write(a, "run", "#!/bin/sh\n(ulimit -d; ulimit -p) > limits\nhead -c 5000 /dev/zero | tr '\\0' y\nexit 69\n", 0o755)
    users.write(a, ".forward", f"|{users.homes[a]}/run\n")
    send(i, f"{a}@{DOMAIN}", sender="u1@example.test")
    [notice] = i.wait_messages("u1@example.test")
    assert (users.homes[a] / "limits").read_text().split() == [str(64 << 10), "77"]
    longest = max(len(m) for m in re.findall(rb"y+", notice.replace(b"\n", b"").replace(b" ", b"")))
    assert 100 < longest <= 1024, longest


def deferred(i, to):
    [line] = i.wait_log(rf" delivery .*to=<{re.escape(to)}@{DOMAIN}> .*status=deferred")
    return line


def test_limits_of_lists(users, make_instance, tmp_path):
    """At each and one past it, where the line names the parameter."""
    a, b = users.add(), users.add()

    def items(n):
        return "".join(f"{a}+{k}\n" for k in range(n))

    def comments(size):
        return f"{a}\n#".ljust(size - 1, "x") + "\n"

    lists = {"three": items(3), "four": items(4), "k1": comments(1024), "k1-more": comments(1025), "deep1": items(1),
             "deep2": f":include:{tmp_path}/deep1\n", "deep3": f":include:{tmp_path}/deep2\n"}
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o644)
    aliases = "".join(f"{name}: :include:{tmp_path}/{name}\n" for name in lists)
    i = start(make_instance, aliases=f"root: {a}\n{aliases}", recipient_delimiter="+", alias_expansion_limit="3", alias_include_depth_limit="2",
              forward_expansion_limit="2", forward_size_limit="1K", direct_delivery="no")
    for count, name in ((3, "three"), (4, "k1"), (5, "deep2")):
        send(i, f"{name}@{DOMAIN}")
        maildir(users.homes[a], count)
    for name, parameter in (("four", "alias_expansion_limit"), ("k1-more", "forward_size_limit"), ("deep3", "alias_include_depth_limit")):
        send(i, f"{name}@{DOMAIN}")
        assert parameter in deferred(i, name)
    users.write(b, ".forward", f"{a}\n{a}+x\n")
    send(i, f"{b}@{DOMAIN}")
    maildir(users.homes[a], 7)
    users.write(b, ".forward", f"{a}\n{a}+x\n{a}+y\n")
    send(i, f"{b}+more@{DOMAIN}")
    assert "forward_expansion_limit" in deferred(i, f"{b}+more")
    users.write(b, ".forward", comments(1025))
    send(i, f"{b}+large@{DOMAIN}")
    assert "forward_size_limit" in deferred(i, f"{b}+large")
    assert len(maildir(users.homes[a], 7)) == 7


def test_owner_of_a_list_that_is_an_alias(users, make_instance):
    a = users.add()
    i = start(make_instance, aliases=f"list: {a}\nowner-list: boss@far.test\n", expand_owner_alias="yes")
    send(i, f"list@{DOMAIN}")
    assert maildir(users.homes[a])[0].read_text().startswith("Return-Path: <boss@far.test>\n")


@pytest.mark.parametrize("tables,kept", [("canonical, virtual", True), ("", False)])
def test_extensions_that_the_result_keeps(users, make_instance, tables, kept):
    a = users.add()
    i = start(make_instance, recipient_delimiter="+", aliases=f"name: {a}\n", propagate_unmatched_extensions=tables,
              virtual_alias_maps=f"inline:{{v@{DOMAIN}={a}@{DOMAIN}}}")
    send(i, f"name+ext@{DOMAIN}")
    assert f"Delivered-To: {a}@{DOMAIN}\n" in maildir(users.homes[a])[0].read_text()
    send(i, f"v+ext@{DOMAIN}")
    [text] = [t for t in (p.read_text() for p in maildir(users.homes[a], 2)) if f"X-Original-To: v+ext@{DOMAIN}\n" in t]
    assert (f"Delivered-To: {a}+ext@{DOMAIN}\n" in text) == kept, text


def test_log_to_syslog(make_instance):
    """In a mount namespace of its own, where /dev/log is this test's."""
    script = f"""if 1:
        import os, signal, socket, sys, subprocess
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        s.bind("/dev/log")
        os.chmod("/dev/log", 0o666)
        master = subprocess.Popen(sys.argv[2:])
        signal.signal(signal.SIGTERM, lambda *_: master.terminate())
        with open(sys.argv[1], "ab", buffering=0) as out:
            s.settimeout(1)
            while master.poll() is None:
                try:
                    out.write(s.recv(65536) + b"\\n")
                except TimeoutError:
                    pass
        sys.exit(master.returncode)"""
    i = make_instance(start=False, main={"log_target": "syslog", "syslog_facility": "local3", "syslog_name": "ship"})
    lines = i.folder / "syslog"
    mount = 'mkdir -p "$0" && cp -a /dev/null /dev/zero /dev/urandom /dev/random /dev/tty "$0" && mount --bind "$0" /dev && exec "$@"'
    i.command = ["unshare", "--mount", "sh", "-c", mount, i.folder / "dev", sys.executable, "-c", script, lines]
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no mount namespaces here")
    i.start(wait=False)
    wait(lambda: lines.exists() and " started " in lines.read_text(), 30, "the start")
    send(i, "u1@example.test")
    i.wait_messages("u1@example.test")
    wait(lambda: "smtp-message" in lines.read_text(), 10, "the line")
    [line] = [x for x in lines.read_text().splitlines() if "smtp-message" in x]
    assert re.match(rf"<{19 * 8 + 6}>ship/smtpd-child\[\d+\]: smtp-message sid=", line), line


def test_a_user_in_many_groups(users, make_instance, tmp_path):  # noqa: F811
    """More than a message holds: mail comes, and the log says once which of them count."""
    name, etc = users.add(), tmp_path / "etc"
    subprocess.run(["cp", "-a", "/etc", etc], stderr=subprocess.DEVNULL, check=False)  # locks of useradd come and go
    with open(etc / "group", "a", encoding="utf-8") as f:
        f.write("".join(f"{name}g{n}:x:{31000 + n}:{name}\n" for n in range(70)))
    i = make_instance(start=False, main={"mydestination": f"{DOMAIN}, localhost", "myorigin": DOMAIN, "home_mailbox": "Maildir/"})
    # all of /etc: useradd of another test puts a new file in the place of one, and a mount on that one ends
    i.command = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc && exec "$@"', etc]
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no mount namespaces here")
    i.start()
    send(i, f"{name}@{DOMAIN}")
    maildir(users.homes[name])
    [former] = i.pids("maps")
    i.allow_deaths = True
    i.kill_program("maps")  # another one asks nss again
    wait(lambda: i.pids("maps") not in ([], [former]), 10, "another maps")
    i.wait_ready()
    send(i, f"{name}@{DOMAIN}")
    maildir(users.homes[name], 2)
    [line] = i.wait_log(" nss-groups ")
    assert f"user={name} groups=71 kept=64" in line


@pytest.mark.skipif(os.environ.get("BULKHEAD_LONG") != "1", reason="takes more than a minute")
def test_many_programs_in_a_row(users, make_instance):
    """Each within command_time_limit, together far beyond what qmgr waits for one: all run, each once."""
    name = users.add()
    i = start(make_instance, command_time_limit="2s", direct=False)
    users.write(name, "take", "#!/bin/sh\necho $1 >> got; sleep 0.9\n", 0o755)
    users.write(name, ".forward", "".join(f'"|{users.homes[name]}/take {n}"\n' for n in range(75)))
    send(i, f"{name}@{DOMAIN}")
    i.wait_log(" delivery .*status=sent", 120)
    assert (users.homes[name] / "got").read_text().split() == [str(n) for n in range(75)]
    assert "job-deadline" not in i.log()
