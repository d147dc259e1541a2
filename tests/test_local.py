"""Local delivery as a whole: aliases, .forward, programs, mbox and Maildir, tables, jails of delivery children."""
import itertools
import os
import pathlib
import re
import shutil
import signal
import smtplib
import stat
import subprocess
import textwrap
import threading
import time

import pytest

from instance import BIN, SLOW, wait

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs to become other users")
DOMAIN = "sys.test"
_numbers = itertools.count()


class Users:
    """System users of a test, with homes in its folder."""

    def __init__(self, folder):
        self.folder, self.names, self.homes = folder, [], {}

    def add(self, uid=None, home=None):
        name = f"bht{os.getpid() % 100000}x{next(_numbers)}"
        home = pathlib.Path(home or self.folder / "home" / name)
        words = ["useradd", "-M", "-U", "-d", str(home), "-s", "/usr/sbin/nologin", "-K", "UID_MIN=20000", "-K", "UID_MAX=29999",
                 "-K", "GID_MIN=20000", "-K", "GID_MAX=29999"]
        self.command(words + (["-u", str(uid)] if uid else []) + [name])
        self.names.append(name)
        self.homes[name] = home
        home.mkdir(parents=True)
        shutil.chown(home, name, name)
        home.chmod(0o750)
        return name

    def write(self, name, file, text, mode=0o600):
        path = self.homes[name] / file
        path.write_text(textwrap.dedent(text))
        shutil.chown(path, name, name)
        path.chmod(mode)

    @staticmethod
    def command(words):
        """Other workers hold the lock of /etc/passwd now and then."""
        for _ in range(50):
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode != 1:
                break
            time.sleep(0.1)
        assert done.returncode == 0, done.stderr

    def remove(self, name):
        self.command(["userdel", name])
        self.names.remove(name)

    def close(self):
        for name in list(self.names):
            self.remove(name)


@pytest.fixture
def users(tmp_path):
    for d in (tmp_path, *tmp_path.parents):
        if str(d).startswith("/tmp/") and len(d.parts) > 2 and d.stat().st_uid == os.geteuid():
            d.chmod(d.stat().st_mode | 0o711)
    (tmp_path / "home").mkdir(mode=0o755)
    (tmp_path / "home").chmod(0o755)
    u = Users(tmp_path)
    yield u
    u.close()


def start(make_instance, aliases="", **main):
    values = {"mydestination": f"{DOMAIN}, localhost", "myorigin": DOMAIN, "home_mailbox": "Maildir/",
              "direct_delivery_deadline": "10s"}  # refusals come back to the client even on a slow machine
    values.update(main)
    return make_instance(main=values, aliases=aliases or "postmaster: root\n", direct=values.pop("direct", True))


def send(i, to, body="Subject: test\n\nhello\n", sender="sender@far.test", options=()):
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=60) as s:
        return s.sendmail(sender, to if isinstance(to, list) else [to], body.replace("\n", "\r\n"), options)


def rcpt(i, to):
    """(code, text) of RCPT."""
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=60) as s:
        s.ehlo()
        s.mail("sender@far.test")
        code, text = s.rcpt(to)
        return code, text.decode()


def maildir(home, count=1, seconds=10):
    def look():
        files = [p for d in ("new", "cur") for p in (pathlib.Path(home) / "Maildir" / d).glob("*")]
        return sorted(files) if len(files) >= count else None

    return wait(look, seconds, f"{count} messages in {home}")


# --- Maildir ---


def test_virtual_user(instance):
    send(instance, "u1@example.test", "Subject: one\n\nFrom here\n.dot\n")
    (text,) = instance.wait_messages("u1@example.test")
    head, body = text.split(b"\n\n", 1)
    assert body == b"From here\n.dot\n"
    lines = head.split(b"\n")
    assert lines[:3] == [b"Return-Path: <sender@far.test>", b"X-Original-To: u1@example.test",
                         b"Delivered-To: u1@example.test"]
    assert lines[3].startswith(b"Received: ")
    (file,) = maildir(instance.home("u1@example.test"))
    info = file.stat()
    assert stat.S_IMODE(info.st_mode) == 0o600
    size, wire = map(int, re.search(r",S=(\d+),W=(\d+)$", file.name).groups())
    assert size == info.st_size == len(text) and wire == size + text.count(b"\n")
    assert not list((file.parent.parent / "tmp").iterdir())


@root_only
def test_system_user(users, make_instance):
    name = users.add()
    i = start(make_instance)
    send(i, [f"{name}@{DOMAIN}", f"{name.upper()}+x@localhost"])
    files = maildir(users.homes[name], 1)
    info = files[0].stat()
    assert info.st_uid == users.homes[name].stat().st_uid and stat.S_IMODE(info.st_mode) == 0o600
    assert stat.S_IMODE(files[0].parent.parent.stat().st_mode) == 0o700


@root_only
def test_unknown_users(users, make_instance):
    name = users.add()
    i = start(make_instance, recipient_delimiter="+")
    assert rcpt(i, f"{name}@{DOMAIN}")[0] == 250
    assert rcpt(i, f"{name}+extension@{DOMAIN}")[0] == 250
    code, text = rcpt(i, f"nosuch@{DOMAIN}")
    assert code == 550 and text == (f"5.1.1 <nosuch@{DOMAIN}>: Recipient address rejected: User unknown in local "
                                    "recipient table")
    code, text = rcpt(i, "nosuch@example.test")
    assert code == 550 and "User unknown in virtual mailbox table" in text
    for always in ("root", "postmaster", "abuse"):
        assert rcpt(i, f"{always}@{DOMAIN}")[0] == 250
    code, text = rcpt(i, "x@far.test")
    assert code == 250  # 127.0.0.1 is in mynetworks


def test_relay_is_denied_to_strangers(make_instance):
    i = make_instance(main={"mynetworks": "192.0.2.0/24"})
    code, text = rcpt(i, "x@far.test")
    assert (code, text) == (554, "5.7.1 <x@far.test>: Relay access denied")
    assert rcpt(i, "u1@example.test")[0] == 250


@root_only
def test_low_uid_needs_an_alias(make_instance):
    i = start(make_instance, aliases="x: y\n")
    send(i, f"daemon@{DOMAIN}")
    (line,) = i.wait_log(r" delivery .*status=deferred")
    assert '"daemon: NAME\\" to /etc/aliases' in line or "daemon: NAME" in line, line


@root_only
def test_home_that_is_missing(users, make_instance):
    name = users.add()
    shutil.rmtree(users.homes[name])
    i = start(make_instance)
    send(i, f"{name}@{DOMAIN}")
    (line,) = i.wait_log(r" delivery .*status=deferred")
    assert f"cannot enter {users.homes[name]}" in line and "make this directory" in line


@root_only
def test_quota(users, make_instance):
    name = users.add()
    i = start(make_instance, mailbox_size_limit="2000")
    send(i, f"{name}@{DOMAIN}")
    with pytest.raises(smtplib.SMTPDataError) as e:
        send(i, f"{name}@{DOMAIN}", "Subject: big\n\n" + "x" * 70 + "\n" + ("y" * 70 + "\n") * 40)
    assert e.value.smtp_code // 100 == 5 and b"5.2.2" in e.value.smtp_error
    send(i, f"{name}@{DOMAIN}")
    maildir(users.homes[name], 2)


@root_only
def test_loop(users, make_instance):
    name = users.add()
    i = start(make_instance)
    with pytest.raises(smtplib.SMTPDataError) as e:
        send(i, f"{name}@{DOMAIN}", f"Subject: x\nDelivered-To: {name}@{DOMAIN}\n\nbody\n")
    assert b"5.4.6" in e.value.smtp_error


# --- mbox ---


@root_only
@pytest.mark.parametrize("mode", [0o1777, 0o2775])
def test_mbox(users, make_instance, tmp_path, mode):
    name = users.add()
    spool = tmp_path / "spool"
    spool.mkdir()
    if mode == 0o2775:
        shutil.chown(spool, 0, "mail")
    spool.chmod(mode)
    i = start(make_instance, home_mailbox="", mail_spool_directory=spool)
    count = 15
    for n in range(count):
        send(i, f"{name}@{DOMAIN}", f"Subject: {n}\n\nFrom the start {n}\n")
    wait(lambda: (spool / name).exists() and (spool / name).read_text().count("\n>From the start") == count, 15, "all mail")
    text = (spool / name).read_text()
    assert len(re.findall(r"^From sender@far\.test \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}$", text, re.M)) == count
    assert text.startswith("From ") and text.endswith("\n\n")
    assert (spool / name).stat().st_uid == users.homes[name].stat().st_uid
    assert not (spool / f"{name}.lock").exists()


@root_only
def test_the_group_of_the_spool_serves_the_mailbox_alone(users, make_instance, tmp_path):
    """Debian's /var/mail: that group may write the mailboxes of all. No program and no file of a user gets it."""
    a, b, c, d, e = (users.add() for _ in range(5))
    home, spool = users.homes[a], tmp_path / "spool"
    spool.mkdir()
    shutil.chown(spool, 0, "mail")
    spool.chmod(0o2775)
    (spool / b).write_text("")
    shutil.chown(spool / b, b, "mail")
    (spool / b).chmod(0o660)
    i = start(make_instance, home_mailbox="", mail_spool_directory=spool)
    users.write(a, "take", "#!/bin/sh\nid -G > got.new; mv got.new got\n", 0o755)
    users.write(a, ".forward", f'"|{home}/take"\n')
    send(i, f"{a}@{DOMAIN}")
    wait(lambda: (home / "got").exists(), 10, "the program")
    assert (home / "got").read_text().split() == [str(home.stat().st_gid)]
    for name, file in ((c, spool / b), (d, spool / "squatted")):
        users.write(name, ".forward", f"{file}\n")
        with pytest.raises(smtplib.SMTPDataError) as refused:
            send(i, f"{name}@{DOMAIN}")
        assert b"is not the mailbox of" in refused.value.smtp_error
    assert sorted(p.name for p in spool.iterdir()) == [b] and not (spool / b).read_text()
    users.write(e, ".forward", f"{spool / e}\n")
    send(i, f"{e}@{DOMAIN}")
    wait(lambda: (spool / e).exists() and (spool / e).read_text().endswith("hello\n\n"), 10, "the mail")


@root_only
def test_mbox_waits_for_the_lock(users, make_instance, tmp_path):
    name = users.add()
    spool = tmp_path / "spool"
    spool.mkdir()
    spool.chmod(0o1777)
    i = start(make_instance, home_mailbox="", mail_spool_directory=spool, mailbox_lock_timeout="2s")
    lock = spool / f"{name}.lock"
    lock.touch()
    send(i, f"{name}@{DOMAIN}")
    (line,) = i.wait_log(r" delivery .*status=deferred.*locked by another program", 20)
    assert not (spool / name).exists()
    lock.unlink()
    i.tool("queue", "flush", check=False)
    wait(lambda: (spool / name).exists(), 20, "the message")


# --- aliases ---


@root_only
def test_plain_aliases_are_expanded_before_the_commit(users, make_instance):
    a, b = users.add(), users.add()
    i = start(make_instance, aliases=f"team: {a}, {b}@localhost\nboss: team\nroot: {a}\n")
    send(i, f"boss@{DOMAIN}")
    maildir(users.homes[a])
    maildir(users.homes[b])
    text = maildir(users.homes[a])[0].read_text()
    assert f"X-Original-To: boss@{DOMAIN}\n" in text and f"Delivered-To: {a}@{DOMAIN}\n" in text
    send(i, "postmaster")
    maildir(users.homes[a], 2)


@root_only
def test_alias_command_file_include_and_list(users, make_instance, tmp_path):
    a = users.add()
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o777)
    script = tmp_path / "take"
    script.write_text(f"#!/bin/sh\n(id -u; echo \"$SENDER|$RECIPIENT|$EXTENSION|$1\"; cat) > {out}/got\n")
    script.chmod(0o755)
    members = tmp_path / "members"
    members.write_text(f"# members\n{a}\n{a}@localhost\n")
    members.chmod(0o644)
    i = start(make_instance, recipient_delimiter="+",
              aliases=f'prog: "|{script} \'a b;c\'"\nfile: {out}/box\nlist: :include:{members}\n'
                      f"owner-list: {a}\nbadlist: :include:{tmp_path}/none\nmixed: {a}, |{script}\n")
    send(i, f"prog+e'x@{DOMAIN}")
    wait(lambda: (out / "got").exists() and (out / "got").read_text().endswith("hello\n"), 10, "the program's output")
    lines = (out / "got").read_text().splitlines()
    assert lines[0] == "65534"  # nobody: default_privs
    assert lines[1] == f"sender@far.test|prog+e_x@{DOMAIN}|e_x|a b;c"
    assert lines[2].startswith("From sender@far.test ") and lines[3] == "Return-Path: <sender@far.test>"
    send(i, f"file@{DOMAIN}")
    wait(lambda: (out / "box").exists() and (out / "box").read_text().endswith("hello\n\n"), 10, "the file")
    send(i, f"list@{DOMAIN}")
    files = maildir(users.homes[a], 1)
    text = files[0].read_text()
    assert f"Delivered-To: list@{DOMAIN}\n" in text
    send(i, f"badlist@{DOMAIN}")
    (line,) = i.wait_log(r" delivery .*to=<badlist.*status=deferred")
    assert f"cannot read the list {tmp_path}/none" in line
    (out / "got").unlink()
    send(i, f"mixed@{DOMAIN}")
    wait(lambda: (out / "got").exists(), 10, "the program's output")
    maildir(users.homes[a], 2)


@root_only
@pytest.mark.parametrize("me", ("\\{}", "{}", "{}@sys.test"))
def test_alias_that_names_itself_beside_a_program(users, make_instance, tmp_path, me):
    """vacation(1): the mailbox gets the message, the program runs once, and .forward is not asked."""
    a, b = users.add(), users.add()
    users.write(a, ".forward", f"{b}\n", 0o644)
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o777)
    script = tmp_path / "vacation"
    script.write_text(f"#!/bin/sh\ncat > {out}/$$\n")
    script.chmod(0o755)
    i = start(make_instance, recipient_delimiter="+", aliases=f"{a}: {me.format(a)}, \"|{script}\", {b}\n")
    for n, address in enumerate((f"{a}@{DOMAIN}", f"{a}+x@localhost"), 1):
        send(i, address)
        files = maildir(users.homes[a], n)
        assert all(f"Delivered-To: {a}" in path.read_text() for path in files)
        maildir(users.homes[b], n)
    i.wait_log(r" delivery .*status=expanded", count=2)
    assert [len(list(p.iterdir())) for p in (out, *(users.homes[u] / "Maildir" / "new" for u in (a, b)))] == [2, 2, 2]
    assert "status=bounced" not in i.log()


@root_only
def test_backslash_before_the_name_of_somebody_else(users, make_instance, tmp_path):
    """The mailbox of that user, whatever alias and .forward there are: of a plain list, beside an include, of a .forward."""
    a, b, c, d = (users.add() for _ in range(4))
    users.write(a, ".forward", f"\\{a}, \\{b}\n")
    users.write(b, ".forward", f"{d}\n")
    tmp_path.joinpath("members").write_text(f"\\{b}@{DOMAIN}\n{d}\n")
    i = start(make_instance, aliases=f"{b}: {c}\nplain: \\{b}, {d}\nitself: itself, \\{b}\nmixed: :include:{tmp_path}/members\n")
    for to, n in ("plain", 1), ("mixed", 2), (a, 3), ("itself", 4):
        send(i, f"{to}@{DOMAIN}", sender="")
        maildir(users.homes[b], n)
    assert len(maildir(users.homes[a])) == 1
    assert len(maildir(users.homes[d], 2)) == 2
    send(i, f"{b}@{DOMAIN}")
    maildir(users.homes[c], 1)
    wait(lambda: i.tool("queue", "list").stdout == "The queue is empty.\n", 20, "the end of all")
    assert [len(maildir(users.homes[u])) for u in (a, b, c, d)] == [1, 4, 1, 2]
    i.wait_log(" status=bounced ")
    assert re.findall(r" to=<(\w+)@\S+ status=bounced", i.log()) == ["itself"], "no user has that name"


@root_only
def test_list_owner_becomes_the_sender(users, make_instance, tmp_path):
    a = users.add()
    i = start(make_instance, aliases=f"list: {a}, nobody-there@{DOMAIN}\nowner-list: {a}\n")
    send(i, f"list@{DOMAIN}")
    texts = [p.read_text() for p in maildir(users.homes[a], 2)]  # the message, and the notice that the owner gets of it
    assert sorted(text.split("\n")[0] for text in texts) == ["Return-Path: <>", f"Return-Path: <owner-list@{DOMAIN}>"], texts


@root_only
def test_changed_aliases_are_seen_at_once(users, make_instance):
    a, b = users.add(), users.add()
    i = start(make_instance, aliases=f"it: {a}\n")
    send(i, f"it@{DOMAIN}")
    maildir(users.homes[a])
    new = i.etc / "aliases.new"
    new.write_text(f"it: {b}\nother: {a}\n")
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=60) as s:  # one process keeps its answers until it is told
        s.sendmail("x@far.test", [f"it@{DOMAIN}"], "Subject: x\r\n\r\n2\r\n")
        maildir(users.homes[a], 2)
        new.rename(i.etc / "aliases")
        i.wait_log("table-changed")
        time.sleep(0.2)
        s.sendmail("x@far.test", [f"it@{DOMAIN}"], "Subject: x\r\n\r\n3\r\n")
        assert s.docmd("NOOP")[0] == 250
    maildir(users.homes[b])
    assert rcpt(i, f"other@{DOMAIN}")[0] == 250
    assert len(maildir(users.homes[a], 2)) == 2


@root_only
def test_new_and_removed_users_are_seen(users, make_instance):
    i = start(make_instance)
    name = users.add()
    assert wait(lambda: rcpt(i, f"{name}@{DOMAIN}")[0] == 250, 10, "the new user")
    users.remove(name)
    assert wait(lambda: rcpt(i, f"{name}@{DOMAIN}")[0] == 550, 10, "the end of the user")


@root_only
def test_error_of_nss_is_temporary(users, make_instance):
    name = users.add()
    i = start(make_instance, user_lookup_timeout="5s")
    (pid,) = i.pids("nss")
    os.kill(pid, signal.SIGSTOP)
    try:
        code, text = rcpt(i, f"{name}@{DOMAIN}")
        assert code == 451 and text.startswith("4.3.0"), (code, text)
        # from now on one asker waits; others are told at once
        late = []
        waits = threading.Thread(target=lambda: late.append(rcpt(i, f"late@{DOMAIN}")))
        waits.start()
        wait(lambda: re.search(r"^maps\[.* waiting=1 ", i.tool("status").stdout, re.M), 10, "the one that waits")
        for n in range(50):
            assert rcpt(i, f"next{n}@{DOMAIN}")[0] == 451
        assert not late
    finally:
        os.kill(pid, signal.SIGCONT)
    waits.join()
    assert late[0][0] == 550
    assert wait(lambda: rcpt(i, f"{name}@{DOMAIN}")[0] == 250, 10, "the answer")


@root_only
def test_an_entry_that_no_answer_holds_is_temporary(users, make_instance):
    """A home of over 4,096 bytes: the asker hears an error at once, and the log names the user."""
    name = users.add()
    i = start(make_instance)
    users.command(["usermod", "-d", "/" + "h/" * 2100 + "x", name])
    code, text = rcpt(i, f"{name}@{DOMAIN}")
    assert code == 451 and text.startswith("4.3.0"), (code, text)
    (line,) = i.wait_log(r" nss-entry ")
    assert f"user={name} " in line and "user-lookup-timeout" not in i.log()


def test_a_value_that_no_answer_holds_is_temporary(make_instance, tmp_path):
    """A line end inside of a table's value, which a reply would repeat."""
    table = tmp_path / "relocated"
    table.write_bytes(b"gone@example.test new\rb@far.test\nmoved@example.test new@far.test\n")
    tmp_path.chmod(0o755)
    i = make_instance(main={"relocated_maps": f"texthash:{table}"})
    assert rcpt(i, "moved@example.test") == (550, "5.1.6 <moved@example.test>: Recipient address rejected: User has moved to new@far.test")
    assert rcpt(i, "gone@example.test") == (451, "4.3.0 Temporary lookup failure")
    (line,) = i.wait_log(r" maps-answer ")
    assert "address=gone@example.test " in line


def test_dead_table_is_temporary(make_instance):
    i = make_instance(main={"virtual_alias_maps": "hash:/nonexistent/table"}, start=False)
    i.start()
    code, text = rcpt(i, "u1@example.test")
    assert (code, text) == (451, "4.3.0 Temporary lookup failure")
    assert "cannot read /nonexistent/table" in i.log()


# --- .forward ---


@root_only
def test_forward(users, make_instance):
    a, b, c = users.add(), users.add(), users.add()
    i = start(make_instance, recipient_delimiter="+")
    users.write(a, ".forward", f"\\{a}, {b}\n")
    send(i, f"{a}@{DOMAIN}")
    maildir(users.homes[a])
    text = maildir(users.homes[b])[0].read_text()
    assert f"Delivered-To: {a}@{DOMAIN}\n" in text and f"Delivered-To: {b}@{DOMAIN}\n" in text
    # by extension
    users.write(a, ".forward+work", f"{c}@localhost\n")
    send(i, f"{a}+work@{DOMAIN}")
    maildir(users.homes[c])
    # an empty one is none; one that others may write is ignored, with a line in the log
    users.write(a, ".forward", "# nothing\n")
    send(i, f"{a}@{DOMAIN}")
    maildir(users.homes[a], 2)
    users.write(a, ".forward", f"{b}\n", 0o666)
    send(i, f"{a}@{DOMAIN}")
    maildir(users.homes[a], 3)
    i.wait_log("forward-ignored")
    # what cannot be parsed waits, and says why
    users.write(a, ".forward", "two words\n")
    send(i, f"{a}@{DOMAIN}")
    (line,) = i.wait_log(r" delivery .*status=deferred")
    assert "an address holds a blank" in line
    assert len(maildir(users.homes[b], 1)) == 1


@root_only
def test_a_process_that_cannot_see_changes_ends_though_mail_is_steady(users, make_instance, tmp_path):
    """The mailbox lies outside of the home: .forward is read at the start; so are the lists of an alias."""
    a, b, c = users.add(), users.add(), users.add()
    spool = tmp_path / "spool"
    spool.mkdir()
    spool.chmod(0o1777)
    members = tmp_path / "members"
    members.write_text(f"{a}@far.test\n")
    members.chmod(0o644)
    i = start(make_instance, aliases=f"list: :include:{members}\n", home_mailbox="", mail_spool_directory=spool, local_child_idle_time="1h")

    def steady(to, done, what):
        def look():
            send(i, f"{to}@{DOMAIN}")
            return done()
        wait(look, 20, what)

    steady(a, lambda: (spool / a).exists(), "the mailbox")
    users.write(a, ".forward", f"{b}\n")
    steady(a, lambda: (spool / b).exists(), "the mail of .forward")
    (users.homes[a] / ".forward").unlink()
    size = (spool / a).stat().st_size
    steady(a, lambda: (spool / a).stat().st_size > size, "mail without .forward")
    send(i, f"list@{DOMAIN}")
    i.wait_log(r" delivery .*to=<list@")
    members.write_text(f"{c}\n")
    steady("list", lambda: (spool / c).exists(), "the mail of the list")
    assert "status=deferred" not in "".join(x for x in i.log().splitlines() if f"to=<{a}@{DOMAIN}>" in x), "none met a process that leaves"
    wait(lambda: len(i.pids("local")) <= 5, 20, "the end of those that were replaced: the zygote and one for each are left")


@root_only
def test_forward_loop_ends(users, make_instance):
    a, b = users.add(), users.add()
    i = start(make_instance)
    users.write(a, ".forward", f"{b}\n")
    users.write(b, ".forward", f"{a}\n")
    send(i, f"{a}@{DOMAIN}")
    (line,) = i.wait_log(r" delivery .*status=bounced", 20)
    assert "mail forwarding loop" in line


@root_only
def test_forward_command_and_file(users, make_instance, tmp_path):
    a = users.add()
    home = users.homes[a]
    i = start(make_instance, command_time_limit="3s")
    users.write(a, "take", "#!/bin/sh\n(id -un; pwd; cat; grep -E 'NoNewPrivs|Seccomp:|CapEff' /proc/self/status) > got\n", 0o755)
    users.write(a, ".forward", f'"|{home}/take"\n{home}/saved\n')
    send(i, f"{a}@{DOMAIN}")
    wait(lambda: (home / "got").exists() and "Seccomp" in (home / "got").read_text(), 10, "the program")
    lines = (home / "got").read_text().splitlines()
    assert lines[0] == a and lines[1] == str(home)
    assert lines[-3:] == ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"]
    wait(lambda: (home / "saved").exists() and (home / "saved").read_text().endswith("hello\n\n"), 10, "the file")
    assert not (home / "Maildir").exists()
    # a file outside of the home is refused, and the rest too
    users.write(a, ".forward", "/etc/hello\n")
    with pytest.raises(smtplib.SMTPDataError) as e:
        send(i, f"{a}@{DOMAIN}")
    assert b"does not lie below" in e.value.smtp_error


@root_only
@pytest.mark.parametrize("script, status, code, text", [
    ("exit 0", "sent", "2.0.0", "delivered to command"),
    ("echo wrong address; exit 67", "bounced", "5.1.1", "user unknown. Command output: wrong address"),
    ("exit 75", "deferred", "4.3.0", "temporary failure"),
    ("echo 4.7.99 come back; exit 69", "deferred", "4.7.99", "come back"),
    ("exit 1", "bounced", "5.3.0", "ended with status 1"),
    ("kill -9 $$", "deferred", "4.3.0", "died by signal 9"),
    ("sleep 60", "bounced", "5.3.0", "ran longer than command_time_limit"),
    ("head -c 100000 /dev/zero | tr '\\0' x; exit 77", "bounced", "5.7.0", "permission denied. Command output: xxx"),
])
def test_exit_codes(users, make_instance, script, status, code, text):
    a = users.add()
    i = start(make_instance, command_time_limit="2s", direct=False)
    users.write(a, "run", f"#!/bin/sh\n{script}\n", 0o755)
    users.write(a, ".forward", f"|{users.homes[a]}/run\n")
    send(i, f"{a}@{DOMAIN}")
    (line,) = i.wait_log(rf" delivery .*to=<{a}@.*status={status}", 15)
    assert f"dsn={code} " in line and text in line, line


@root_only
def test_mailbox_command(users, make_instance, tmp_path):
    a = users.add()
    tool = tmp_path / "store"
    tool.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\" > got\ncat >> got\n")
    tool.chmod(0o755)
    i = start(make_instance, recipient_delimiter="+", mailbox_command=f"{tool} -a $EXTENSION 'x $USER' $$")
    send(i, f"{a}+it@{DOMAIN}")
    wait(lambda: (users.homes[a] / "got").exists() and "hello" in (users.homes[a] / "got").read_text(), 10, "the program")
    assert (users.homes[a] / "got").read_text().splitlines()[:4] == ["-a", "it", f"x {a}", "$$"]


def test_virtual_users_run_no_programs(make_instance):
    i = make_instance()
    home = i.home("u1@example.test")
    (home / ".forward").write_text("|/bin/true\n")
    send(i, "u1@example.test")
    i.wait_messages("u1@example.test")


# --- jails ---


def status_of(pid):
    return dict(re.findall(r"^(\w+):\t?(.*)$", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M))


@root_only
def test_delivery_children_are_jailed(users, make_instance):
    a, b = users.add(), users.add()
    i = start(make_instance, local_child_idle_time="30s")
    send(i, [f"{a}@{DOMAIN}", f"{b}@{DOMAIN}", "u1@example.test"])
    maildir(users.homes[a])
    maildir(users.homes[b])
    i.wait_messages("u1@example.test")
    (zygote,) = (p for p in i.pids("local") if int(status_of(p)["PPid"]) == i.process.pid)
    children = [p for p in i.pids("local") if p != zygote]
    assert len(children) == 3
    uids = {}
    for pid in children:
        s = status_of(pid)
        assert s["Seccomp"] == "2" and s["NoNewPrivs"] == "1"
        assert int(s["CapPrm"], 16) == int(s["CapEff"], 16) == int(s["CapInh"], 16) == 0
        assert len(set(s["Uid"].split())) == 1
        uids[int(s["Uid"].split()[0])] = os.readlink(f"/proc/{pid}/root")
        for fd in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
            assert not target.startswith("/") or target.startswith((str(i.folder), str(users.folder), "/dev/null")), target
    for name in (a, b):
        assert uids[users.homes[name].stat().st_uid] == str(users.homes[name])
    assert uids[i.home("u1@example.test").stat().st_uid] == str(i.home("u1@example.test"))
    assert int(status_of(zygote)["CapEff"], 16) == (1 << 6 | 1 << 7 | 1 << 5 | 1 << 18)


@root_only
def test_children_end_when_idle(users, make_instance):
    a = users.add()
    i = start(make_instance, local_child_idle_time="1s")
    send(i, f"{a}@{DOMAIN}")
    maildir(users.homes[a])
    wait(lambda: len(i.pids("local")) == 1, 10, "the end of the child")
    send(i, f"{a}@{DOMAIN}")
    maildir(users.homes[a], 2)


def test_a_reload_shortens_the_life_of_idle_children(make_instance):
    i = start(make_instance, local_child_idle_time="1h", direct_delivery="no")
    send(i, "u1@example.test")
    i.wait_messages("u1@example.test")
    assert len(i.pids("local")) == 2
    time.sleep(1)  # by then qmgr has nothing left to wake up for
    i.set(local_child_idle_time="1s")
    i.reload()
    wait(lambda: len(i.pids("local")) == 1, 20, "the end of the child")
    send(i, "u1@example.test")
    i.wait_messages("u1@example.test", 2)


def test_many_messages_at_once(make_instance):
    """Parallel jobs of one user: each arrives once."""
    i = make_instance(main={"local_destination_concurrency_limit": "8", "smtpd_client_connection_count_limit": "0"})
    script = ("import smtplib,sys\ns=smtplib.SMTP('127.0.0.1',int(sys.argv[1]))\n"
              "for n in range(25): s.sendmail('a@far.test',['u1@example.test'],'Subject: %s-%d\\r\\n\\r\\nx\\r\\n'%(sys.argv[2],n))\n")
    procs = [subprocess.Popen(["/usr/bin/python3", "-c", script, str(i.port["smtp"]), str(k)]) for k in range(8)]
    assert all(p.wait(120) == 0 for p in procs)
    texts = i.wait_messages("u1@example.test", 200, 30)
    assert len({re.search(rb"Subject: (\S+)", t)[1] for t in texts}) == len(texts) == 200


# --- large lists and kinds of tables ---


@root_only
def test_large_list_comes_in_parts(users, make_instance, tmp_path):
    """More addresses than one message between processes holds, and than maps and nss take at once."""
    a = users.add()
    count = 2500
    members = tmp_path / "members"
    members.write_text("".join(f"{a}+a-long-extension-that-fills-the-message-soon-{n}@{DOMAIN}\n" for n in range(count)))
    members.chmod(0o644)
    i = start(make_instance, aliases=f"list: :include:{members}\n", recipient_delimiter="+",
              local_destination_concurrency_limit="20")
    send(i, f"list@{DOMAIN}")
    i.wait_log(r"text=\"expanded to 2500 recipients as ")
    i.wait_log(r'text="expanded to 2500 recipients as ')
    files = maildir(users.homes[a], count, 60 * SLOW)
    assert len(files) == count


@root_only
def test_table_types(users, make_instance, tmp_path):
    a, b = users.add(), users.add()
    i = make_instance(
        main={"mydestination": f"{DOMAIN}, localhost", "myorigin": DOMAIN, "home_mailbox": "Maildir/",
              "alias_maps": f"lmdb:{tmp_path}/tables/aliases, hash:{tmp_path}/tables/more",
              "virtual_alias_domains": "v.test, inline:{in.test=x}",
              "virtual_alias_maps": f"regexp:{tmp_path}/tables/re, pcre:{tmp_path}/tables/pcre, "
                                    f"inline:{{{{x@v.test = {a}, {b}}}}}, lmdb:{tmp_path}/tables/virtual"},
        aliases="x: y\n", start=False)
    tables = tmp_path / "tables"
    tables.mkdir(mode=0o755)
    tables.chmod(0o755)
    (tables / "aliases").write_text(f"fromlmdb: {a}\n")
    (tables / "more").write_text(f"frommore: {b}\n")
    (tables / "re").write_text(f"/^r-(.*)@v\\.test$/ $1@{DOMAIN}\n")
    (tables / "pcre").write_text(f"/^p-(?<n>[a-z0-9]+)@in\\.test$/ $1\n/^(a+)+$@/ x\n")
    (tables / "virtual").write_text(f"l@v.test {a}\n")
    i.tool("map", "build", tables / "virtual")
    done = subprocess.run([BIN / "newaliases"], env={**os.environ, "MAIL_CONFIG": str(i.etc)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    i.start()
    assert rcpt(i, f"fromlmdb@{DOMAIN}")[0] == 250
    assert rcpt(i, f"frommore@{DOMAIN}")[0] == 250
    for address in (f"r-{a}@v.test", f"p-{a}@in.test", "x@v.test", "l@v.test"):
        send(i, address)
    maildir(users.homes[a], 4)
    maildir(users.homes[b], 1)
    assert rcpt(i, "nosuch@v.test") == (550, "5.1.1 <nosuch@v.test>: Recipient address rejected: User unknown in "
                                             "virtual alias table")
    # a new lmdb file is published by rename and seen
    (tables / "virtual").write_text(f"new@v.test {a}\n")
    i.tool("map", "build", tables / "virtual")
    assert wait(lambda: rcpt(i, "new@v.test")[0] == 250, 10, "the new table")
    assert rcpt(i, "l@v.test")[0] == 550


@root_only
def test_reload_with_a_table_elsewhere(users, make_instance, tmp_path):
    a = users.add()
    i = start(make_instance)
    other = tmp_path / "other"
    other.mkdir(mode=0o755)
    other.chmod(0o755)
    (other / "virtual").write_text(f"moved@far.test {a}\n")
    i.set(virtual_alias_maps=f"hash:{other}/virtual")
    i.reload()

    def taken():
        try:
            return send(i, "moved@far.test") == {}
        except smtplib.SMTPException:
            return False

    wait(taken, 20, "the new table")
    maildir(users.homes[a])
    i.wait_log("maps-renew reason=.a table lies in a directory")
    assert "table-open" not in i.log()
