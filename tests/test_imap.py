"""IMAP as real clients speak it: imaplib, curl, mutt, mbsync, imapflow; and what only shows with whole daemons."""
import imaplib
import json
import os
import pathlib
import pty
import re
import select
import shutil
import socket
import subprocess
import threading
import time

import pytest

import nodejs
from instance import ROOT, SLOW

USER, PASSWORD = "u1@example.test", "pass1"
VECTORS = ROOT.parent / "shared/vectors/messages"
MESSAGE = b"From: a@example.org\r\nTo: u1@example.test\r\nSubject: %s\r\nMessage-ID: <%s@example.org>\r\n\r\n%s\r\n"


def message(subject, body="body"):
    return MESSAGE % (subject.encode(), subject.replace(" ", ".").encode(), body.encode())


def login(i, folder=None, user=USER, password=PASSWORD):
    m = imaplib.IMAP4_SSL("localhost", i.port["imaps"], ssl_context=i.tls(), timeout=30 * SLOW)
    m.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # imaplib writes a literal in three pieces
    assert m.login(user, password)[0] == "OK"
    if folder:
        assert m.select(folder)[0] == "OK"
    return m


def ok(answer):
    assert answer[0] == "OK", answer
    return answer[1]


def deliver(i, text, folder=""):
    """As a delivery does: tmp/, then rename into new/. The owner is the user's uid."""
    box = i.home(USER) / "Maildir" / folder
    stat = box.stat()
    name = f"{time.time_ns()}.P{os.getpid()}.test"
    (box / "tmp" / name).write_bytes(text)
    os.chown(box / "tmp" / name, stat.st_uid, stat.st_gid)
    os.rename(box / "tmp" / name, box / "new" / name)


def run(*words, timeout=60, **options):
    return subprocess.run([str(w) for w in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=timeout * SLOW, check=False, **options)


def cpu_ns(i, program):
    return sum(int((pathlib.Path("/proc") / str(pid) / "schedstat").read_text().split()[0]) for pid in i.pids(program))


# --- imaplib ---

def test_imaplib_session(instance):
    m = login(instance)
    folders = [f.decode() for f in ok(m.list())]
    for use, name in (("Drafts", "Drafts"), ("Sent", "Sent"), ("Junk", "Junk"), ("Trash", "Trash"),
                      ("Archive", "Archive")):
        assert any(f"\\{use}" in f and f.endswith(f'"{name}"') for f in folders), folders
    ok(m.create("work/new"))
    ok(m.subscribe("work/new"))
    ok(m.select())
    for n in range(5):
        ok(m.append("INBOX", "\\Seen" if n == 0 else None, None, message(f"m {n}")))
    ok(m.noop())
    assert ok(m.search(None, "UNSEEN")) == [b"2 3 4 5"]
    assert ok(m.search(None, "SUBJECT", '"M 3"')) == [b"4"]
    assert ok(m.fetch("2", "(RFC822)"))[0][1] == message("m 1")
    ok(m.store("3", "+FLAGS", "(\\Flagged $Mark)"))
    ok(m.copy("1:2", "work/new"))
    ok(m.uid("MOVE", "5", "work/new"))
    ok(m.store("4", "+FLAGS", "\\Deleted"))
    assert ok(m.expunge())[-1] == b"4"
    assert b"MESSAGES 3" in ok(m.status("INBOX", "(MESSAGES)"))[0]
    assert b"MESSAGES 3" in ok(m.status("work/new", "(MESSAGES UNSEEN SIZE)"))[0]
    m.logout()
    # Nothing of it is only in memory.
    m = login(instance, "INBOX")
    assert b"$Mark" in ok(m.fetch("3", "(FLAGS)"))[0]
    m.logout()


def fill(i, count):
    """count messages in new/ of the INBOX."""
    box = i.home(USER) / "Maildir"
    stat, new = box.stat(), os.open(box / "new", os.O_RDONLY)
    for n in range(count):
        fd = os.open(f"{1700000000 + n}.M1P1R{n}.h", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=new)
        os.write(fd, message(f"m {n}"))
        os.fchown(fd, stat.st_uid, stat.st_gid)
        os.close(fd)
    os.close(new)


def test_costs_grow_with_the_mailbox_not_with_its_square(make_instance):
    """CPU per message of one large command in a mailbox of 1,000 and of 10,000, all of them recent."""
    commands = {
        "flags": lambda m, n: m.fetch("1:*", "(FLAGS)"),
        "recent": lambda m, n: m.search(None, "NOT", "RECENT"),
        "size": lambda m, n: m.fetch("1:*", "(UID RFC822.SIZE)"),
        "envelope": lambda m, n: m.fetch("1:*", "(ENVELOPE)"),
        "store": lambda m, n: m.store("1:*", "+FLAGS.SILENT", "\\Deleted"),
        "copy": lambda m, n: m.copy("1:*", "Archive"),
        "expunge": lambda m, n: m.expunge(),
    }
    cost = {}
    for count in (1000, 10000):
        i = make_instance()
        m = login(i)
        fill(i, count)
        assert ok(m.select()) == [b"%d" % count]
        for name, command in commands.items():
            before = cpu_ns(i, "imapd")
            ok(command(m, count))
            cost[name, count] = (cpu_ns(i, "imapd") - before) / count
        m.logout()
    grown = {name: cost[name, 10000] / cost[name, 1000] for name in commands}
    assert all(times < 3 for times in grown.values()), (grown, cost)


def test_a_folder_that_cannot_be_read_is_listed_as_such(instance):
    m = login(instance)
    ok(m.create("broken"))
    (instance.home(USER) / "Maildir/.broken/bh-journal").mkdir()
    m.send(b'l LIST "" "broken" RETURN (STATUS (MESSAGES))\r\n')
    assert m.readline() == b'* LIST (\\Noselect \\HasNoChildren) "/" "broken"\r\n'
    assert m.readline() == b"l OK Done\r\n"
    m.logout()


def test_starttls_is_needed_for_a_password(instance):
    m = imaplib.IMAP4("localhost", instance.port["imap"], timeout=30)
    assert "LOGINDISABLED" in m.capabilities
    with pytest.raises(imaplib.IMAP4.error):
        m.login(USER, PASSWORD)
    m.starttls(instance.tls())
    assert "LOGINDISABLED" not in m.capabilities
    ok(m.login(USER, PASSWORD))
    m.logout()


def test_commands_behind_the_login_are_not_lost(instance):
    """Pipelined with LOGIN: login hands them to the session."""
    with socket.create_connection(("localhost", instance.port["imaps"])) as raw:
        with instance.tls().wrap_socket(raw, server_hostname="localhost") as s:
            s.sendall(f"a LOGIN {USER} {PASSWORD}\r\nb SELECT INBOX\r\nc LOGOUT\r\n".encode())
            s.settimeout(20 * SLOW)
            got = b""
            while b"c OK" not in got:
                data = s.recv(65536)
                assert data, got
                got += data
    assert got.index(b"a OK [CAPABILITY") < got.index(b"b OK [READ-WRITE]") < got.index(b"c OK")


def test_many_commands_at_once(instance):
    """More than one input buffer and one turn take, with answers that fill the stream; then half a close."""
    m = login(instance, "INBOX")
    ok(m.append("INBOX", None, None, message("big", ("x" * 70 + "\r\n") * 3000)))
    m.logout()
    with socket.create_connection(("localhost", instance.port["imaps"])) as raw:
        with instance.tls().wrap_socket(raw, server_hostname="localhost") as s:
            s.settimeout(30 * SLOW)
            s.sendall(f"a LOGIN {USER} {PASSWORD}\r\nb SELECT INBOX\r\n".encode())
            commands = b"".join(b"n%d NOOP\r\nf%d FETCH 1 (FLAGS BODY.PEEK[TEXT])\r\n" % (n, n) for n in range(1000))
            sender = threading.Thread(target=lambda: s.sendall(commands + b"z LOGOUT\r\n"))
            sender.start()
            time.sleep(0.3)  # nobody reads for a while
            got, tail = 0, b""
            while b"z OK" not in tail:
                data = s.recv(1 << 20)
                assert data, tail[-200:]
                got += len(data)
                tail = (tail + data)[-4000:]
            sender.join()
    assert got > 1000 * 72 * 3000


def read_data(text, at=0):
    """One IMAP datum at text[at:]: list, bytes, int or None; strict. Returns it and the offset behind it."""
    c = text[at:at + 1]
    if c == b"(":
        out, at = [], at + 1
        while text[at:at + 1] != b")":
            item, at = read_data(text, at)
            out.append(item)
            if text[at:at + 1] == b" ":
                assert text[at + 1:at + 2] not in (b")", b" "), text[at:at + 40]
                at += 1
            else:  # only lists may stand side by side
                assert text[at:at + 1] == b")" or isinstance(item, list), text[at:at + 40]
        return out, at + 1
    if c == b'"':
        m = re.compile(rb'"((?:[^"\\\r\n\x80-\xff\0]|\\["\\])*)"').match(text, at)
        assert m, text[at:at + 80]
        return m[1], m.end()
    if c == b"{":
        m = re.compile(rb"\{(\d+)\}\r\n").match(text, at)
        return text[m.end():m.end() + int(m[1])], m.end() + int(m[1])
    m = re.compile(rb"NIL|\d+").match(text, at)
    assert m, text[at:at + 80]
    return None if m[0] == b"NIL" else int(m[0]), m.end()


def check_envelope(e):
    assert isinstance(e, list) and len(e) == 10, e
    for i in (0, 1, 8, 9):
        assert e[i] is None or isinstance(e[i], bytes), e
    for group in e[2:8]:
        for address in group or []:
            assert len(address) == 4 and all(a is None or isinstance(a, bytes) for a in address), group


def check_params(p):
    assert p is None or (len(p) % 2 == 0 and p and all(isinstance(x, bytes) for x in p)), p


def check_extension(e):
    assert len(e) == 3 and (e[0] is None or isinstance(e[0][0], bytes) and len(e[0]) == 2), e
    if e[0]:
        check_params(e[0][1])


def check_body(b):
    """RFC 9051 body-type-1part and body-type-mpart with all their extension data; the number of parts."""
    if isinstance(b[0], list):
        n = 0
        while isinstance(b[n], list):
            n += 1
        assert isinstance(b[n], bytes) and len(b) == n + 5, b
        check_params(b[n + 1])
        check_extension(b[n + 2:])
        return 1 + sum(check_body(part) for part in b[:n])
    kind, sub, params, ident, text, encoding, size = b[:7]
    assert all(isinstance(x, bytes) for x in (kind, sub, encoding)) and isinstance(size, int), b
    check_params(params)
    rest, inner = b[7:], 0
    if (kind.lower(), sub.lower()) == (b"message", b"rfc822"):
        check_envelope(rest[0])
        inner, rest = check_body(rest[1]), rest[2:]
        assert isinstance(rest[0], int)
        rest = rest[1:]
    elif kind.lower() == b"text":
        assert isinstance(rest[0], int), b
        rest = rest[1:]
    assert len(rest) == 4, b
    check_extension(rest[1:])
    return 1 + inner


@pytest.mark.skipif(not VECTORS.is_dir(), reason="the vectors are not there")
def test_every_vector_comes_back_byte_for_byte(make_instance):
    i = make_instance(main={"imap_append_limit": "10M"})
    m = login(i, "INBOX")
    texts = []
    for path in sorted(VECTORS.rglob("*")):
        if path.suffix not in (".eml", ".msg", ".txt") or path.name in ("README.txt",):
            continue
        text = re.sub(rb"\r?\n", b"\r\n", path.read_bytes())
        if text and b"\0" not in text:
            texts.append((path, text))
    for _, text in texts:
        ok(m.append("INBOX", None, None, text))
    ok(m.noop())
    assert len(texts) > 300
    parts = 0
    for n, (path, text) in enumerate(texts, 1):
        data = b"".join(p if isinstance(p, bytes) else p[0] + b"\r\n" + p[1]
                        for p in ok(m.fetch(str(n), "(ENVELOPE BODYSTRUCTURE)")))
        envelope, at = read_data(data, data.index(b"ENVELOPE ") + 9)
        check_envelope(envelope)
        assert data[at:at + 15] == b" BODYSTRUCTURE ", path
        body, at = read_data(data, at + 15)
        assert data[at:] == b")", path
        parts += check_body(body)
        got = ok(m.fetch(str(n), "(RFC822.SIZE BODY.PEEK[])"))
        literal = got[0][1]
        assert literal == text, path
        assert b"RFC822.SIZE %d " % len(text) in got[0][0], path
    assert parts > 900
    m.logout()


# --- IDLE, several connections ---

def lines_until(m, pattern, seconds=10):
    m.sock.settimeout(seconds * SLOW)
    seen = []
    while not seen or not re.search(pattern, seen[-1]):
        try:
            seen.append(m.readline())
        except TimeoutError:
            raise AssertionError(f"{pattern} not seen: {seen}") from None
    return seen


def test_idle_tells_of_a_delivery_and_of_the_other_connection(instance):
    a, b = login(instance, "INBOX"), login(instance, "INBOX")
    a.send(b"x IDLE\r\n")
    lines_until(a, rb"^\+ ")
    begin = time.monotonic()
    deliver(instance, message("pushed"))
    lines_until(a, rb"^\* 1 EXISTS")
    assert time.monotonic() - begin < 1 * SLOW
    ok(b.store("1", "+FLAGS", "\\Seen")) if ok(b.noop()) else None
    lines_until(a, rb"^\* 1 FETCH .*Seen")
    ok(b.store("1", "+FLAGS", "\\Deleted"))
    ok(b.expunge())
    lines_until(a, rb"^\* 1 EXPUNGE")
    a.send(b"DONE\r\n")
    lines_until(a, rb"^x OK")
    # One process serves both; beside it there is only the zygote.
    assert len(instance.pids("imapd")) == 2
    a.logout()
    b.logout()


def test_a_client_that_reads_nothing_holds_up_nobody(make_instance):
    i = make_instance(main={"imap_append_limit": "30M", "message_size_limit": "30M"})
    m = login(i, "INBOX")
    ok(m.append("INBOX", None, None, message("big", "x" * 998 + "\r\n" + ("y" * 76 + "\r\n") * 150000)))
    ok(m.noop())
    slow = login(i, "INBOX")
    for n in range(20):
        slow.send(b"s%d FETCH 1 BODY.PEEK[]\r\n" % n)
    time.sleep(0.3)
    begin = time.monotonic()
    for _ in range(20):
        ok(m.noop())
        ok(m.fetch("1", "(FLAGS)"))
    assert time.monotonic() - begin < 2 * SLOW
    slow.shutdown()
    m.logout()


def test_an_idling_client_that_reads_nothing_hears_how_it_ended(make_instance):
    """What it missed costs no memory: it is told when it reads again, each message once."""
    count, rounds = 200, 60
    i = make_instance()
    m = login(i)
    fill(i, count)
    ok(m.select())
    ok(m.store("1:*", "+FLAGS.SILENT", "(%s)" % " ".join(chr(97 + n) * 190 for n in range(10))))
    slow = login(i, "INBOX")
    slow.send(b"x IDLE\r\n")
    lines_until(slow, rb"^\+ ")
    for n in range(rounds):  # 24 MB, more than the kernel holds for it
        ok(m.store("1:*", "-FLAGS.SILENT" if n % 2 else "+FLAGS.SILENT", "\\Flagged"))
    ok(m.store(f"{count}", "+FLAGS.SILENT", "\\Answered"))
    ok(m.store(f"{count}", "+FLAGS.SILENT", "\\Draft"))
    seen = lines_until(slow, rb"^\* %d FETCH .*Draft" % count, 30)
    assert len(seen) < count * rounds / 2
    last = {int(line.split()[1]): line for line in seen}
    assert len(last) == count and not any(b"Flagged" in line for line in last.values())
    slow.send(b"DONE\r\n")
    lines_until(slow, rb"^x OK")


def test_what_another_program_takes_back_is_not_expunged(instance):
    m = login(instance, "INBOX")
    for name in ("one", "two"):
        ok(m.append("INBOX", None, None, message(name)))
    ok(m.store("1:2", "+FLAGS", "\\Deleted"))
    cur = instance.home(USER) / "Maildir" / "cur"
    first = sorted(cur.iterdir())[0]
    os.rename(first, str(first).replace(":2,T", ":2,"))
    ok(m.expunge())
    left = list(cur.iterdir())
    assert len(left) == 1 and left[0].read_bytes() == message("one")


def test_a_session_that_dies_is_started_anew(make_instance):
    i = make_instance(allow_deaths=True)
    a = login(i, "INBOX")
    zygote = min(i.pids("imapd"))
    child = [pid for pid in i.pids("imapd") if pid != zygote]
    assert len(child) == 1
    os.kill(child[0], 9)
    with pytest.raises((imaplib.IMAP4.abort, imaplib.IMAP4.error, OSError)):
        a.noop()
    b = login(i, "INBOX")
    ok(b.noop())
    b.logout()


def test_what_was_answered_survives_kill_minus_9(make_instance):
    """APPEND, STORE, COPY, MOVE, EXPUNGE under kill -9: each OK that came is true afterwards, nothing is there twice."""
    i = make_instance(allow_deaths=True)
    login(i).logout()
    zygote = min(i.pids("imapd"))
    stop = threading.Event()

    def killer():
        while not stop.is_set():
            time.sleep(0.15)
            for pid in i.pids("imapd"):
                if pid != zygote:
                    os.kill(pid, 9)

    kept, flagged, gone, moved, n = {}, set(), set(), set(), 0  # by subject; kept has the UID that was told
    thread = threading.Thread(target=killer)
    thread.start()
    end = time.monotonic() + 6
    while time.monotonic() < end:
        try:
            m = login(i, "INBOX")
            while time.monotonic() < end:
                n += 1
                subject = f"n{n}"
                answer = m.append("INBOX", None, None, message(subject))
                uid = re.search(rb"APPENDUID \d+ (\d+)", answer[1][0])[1].decode()
                kept[subject] = uid
                if n % 4 == 1 and m.uid("STORE", uid, "+FLAGS", "(\\Flagged)")[0] == "OK":
                    flagged.add(subject)
                if n % 4 == 2:
                    gone.add(subject)  # may be gone from now on
                    m.uid("STORE", uid, "+FLAGS", "(\\Deleted)")
                    m.uid("EXPUNGE", uid)
                if n % 4 == 3:
                    moved.add(subject)  # may be in either
                    m.uid("MOVE", uid, "Archive")
        except (imaplib.IMAP4.error, OSError, TypeError):
            continue
    stop.set()
    thread.join()
    m = login(i)
    found = {}
    for folder in ("INBOX", "Archive"):
        ok(m.select(folder))
        if not int(m.response("EXISTS")[1][-1] or 0):
            continue
        data = ok(m.fetch("1:*", "(UID FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])"))
        for part in data:
            if isinstance(part, tuple):
                subject = re.search(rb"Subject: (\S+)", part[1])[1].decode()
                found.setdefault(subject, []).append((folder, re.search(rb"UID (\d+)", part[0])[1].decode(),
                                                      b"\\Flagged" in part[0]))
    m.logout()
    assert len(kept) > 50, (len(kept), n)
    for subject, uid in kept.items():
        copies = found.get(subject, [])
        if subject not in gone:
            assert copies, f"{subject} is lost"
        if subject not in gone and subject not in moved:
            assert [c[:2] for c in copies] == [("INBOX", uid)], (subject, uid, copies)
            assert copies[0][2] or subject not in flagged, subject
        assert len(copies) <= 1 or subject in moved, (subject, copies)


def test_quota(make_instance):
    i = make_instance(main={"mailbox_size_limit": "20000"})
    m = login(i)
    ok(m.append("INBOX", None, None, message("fits", "x" * 10000)))
    kind, text = m.append("INBOX", None, None, message("does not", "x" * 15000))
    assert kind == "NO" and b"OVERQUOTA" in text[0], text
    ok(m.append("INBOX", None, None, message("fits too", "x" * 5000)))
    m.logout()


# --- curl ---

def test_curl(instance, tmp_path):
    mail = tmp_path / "mail"
    mail.write_bytes(message("by curl"))
    common = ("curl", "-sS", "--cacert", instance.data / "self-made.pem", "-u", f"{USER}:{PASSWORD}")
    url = f"imaps://localhost:{instance.port['imaps']}"
    done = run(*common, "-T", mail, f"{url}/INBOX")
    assert done.returncode == 0, done.stderr
    done = run(*common, f"{url}/INBOX;UID=1")
    assert done.stdout == message("by curl"), done
    done = run(*common, f"{url}/INBOX?SUBJECT%20curl")
    assert done.stdout == b"* SEARCH 1\r\n", done
    done = run(*common, "--ssl-reqd", "-X", "STATUS INBOX (MESSAGES)", f"imap://localhost:{instance.port['imap']}/")
    assert b"(MESSAGES 1)" in done.stdout, done
    done = run(*common, "--login-options", "AUTH=PLAIN", f"{url}/")
    assert b'"Sent"' in done.stdout, done


# --- mutt ---

@pytest.mark.skipif(not shutil.which("mutt"), reason="mutt is not installed")
def test_mutt(instance, tmp_path):
    m = login(instance)
    for n in range(3):
        ok(m.append("INBOX", None, None, message(f"mutt {n}")))
    rc = tmp_path / "muttrc"
    rc.write_text(f"""set folder = "imaps://localhost:{instance.port['imaps']}/"
set spoolfile = "+INBOX"
set imap_user = "{USER}"
set imap_pass = "{PASSWORD}"
set certificate_file = "{instance.data / 'self-made.pem'}"
set ssl_verify_host = no
set ssl_ca_certificates_file = "{instance.data / 'self-made.pem'}"
set header_cache = ""
set move = no
set confirmappend = no
set confirmcreate = no
set delete = yes
set quit = yes
set mail_check = 1
push "<tag-pattern>~A<enter><tag-prefix><copy-message>{tmp_path}/out<enter><delete-pattern>~s 'mutt 1'<enter><flag-message><quit>"
""")
    pid, fd = pty.fork()
    if not pid:
        os.environ.update(TERM="xterm", HOME=str(tmp_path), LANG="C")
        os.execvp("mutt", ["mutt", "-F", str(rc)])
    screen, end = b"", time.monotonic() + 40 * SLOW
    while time.monotonic() < end:
        if not select.select([fd], [], [], 0.5)[0]:
            continue
        try:
            data = os.read(fd, 65536)
        except OSError:
            break
        if not data:
            break
        screen += data
        if b"(r)eject" in data or b"(o)nce" in data:
            os.write(fd, b"o")
    else:
        os.kill(pid, 9)
        raise AssertionError(screen[-3000:])
    os.waitpid(pid, 0)
    text = (tmp_path / "out").read_text()
    assert text.count("\nSubject: mutt ") == 3, text
    ok(m.select())
    assert ok(m.search(None, "ALL")) == [b"1 2"]
    assert ok(m.search(None, "FLAGGED")) != [b""]
    m.logout()


# --- mbsync, both ways ---

@pytest.mark.skipif(not shutil.which("mbsync"), reason="isync is not installed")
def test_mbsync_both_ways(instance, tmp_path):
    local = tmp_path / "local"
    local.mkdir()
    rc = tmp_path / "mbsyncrc"
    rc.write_text(f"""IMAPAccount a
Host localhost
Port {instance.port['imaps']}
User {USER}
Pass {PASSWORD}
SSLType IMAPS
CertificateFile {instance.data / 'self-made.pem'}

IMAPStore far
Account a

MaildirStore near
Path {local}/
Inbox {local}/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Remove Both
Expunge Both
SyncState *
""")

    def sync():
        done = run("mbsync", "-c", rc, "-a")
        assert done.returncode == 0, done.stderr.decode()

    def near(folder="INBOX"):
        return sorted(p for d in ("new", "cur") for p in (local / folder / d).iterdir())

    m = login(instance, "INBOX")
    for n in range(4):
        ok(m.append("INBOX", None, None, message(f"sync {n}")))
    ok(m.create("work"))
    ok(m.append("work", "\\Flagged", None, message("in work")))
    sync()
    assert len(near()) == 4 and len(near("work")) == 1
    assert near("work")[0].name.endswith(":2,F")
    # From near to far: a new message, a flag, a removal.
    (local / "INBOX/cur/new-one:2,S").write_bytes(message("from near").replace(b"\r\n", b"\n"))
    files = {p: p.read_bytes() for p in near()}
    seen = next(p for p, t in files.items() if b"sync 1" in t)
    seen.rename(local / "INBOX/cur" / (seen.name.split(":")[0] + ":2,RS"))
    gone = next(p for p, t in files.items() if b"sync 2" in t)
    gone.rename(local / "INBOX/cur" / (gone.name.split(":")[0] + ":2,T"))
    # From far to near at the same time.
    ok(m.noop())
    ok(m.store("1", "+FLAGS", "\\Answered"))
    ok(m.store("4", "+FLAGS", "\\Deleted"))
    ok(m.expunge())
    sync()
    ok(m.noop())
    assert len(ok(m.search(None, "ALL"))[0].split()) == 3
    assert len(near()) == 3
    assert ok(m.search(None, "SUBJECT", '"from near"', "SEEN")) != [b""]
    assert ok(m.search(None, "SUBJECT", '"sync 1"', "ANSWERED", "SEEN")) != [b""]
    assert any(b"sync 0" in p.read_bytes() and "R" in p.name for p in near())
    far = set(re.findall(rb"Subject: (.*?)\r", b"".join(part[1] for part in ok(m.fetch("1:*", "(BODY.PEEK[])"))
                                                       if isinstance(part, tuple))))
    assert far == {b"sync 0", b"sync 1", b"from near"}
    sync()
    assert len(near()) == 3
    m.logout()


# --- imapflow ---

FLOW = """
const { ImapFlow } = require('imapflow');
(async () => {
  const c = new ImapFlow({ host: 'localhost', port: +process.argv[2], secure: true, logger: false,
    tls: { ca: require('fs').readFileSync(process.argv[3]) }, auth: { user: 'u1@example.test', pass: 'pass1' } });
  await c.connect();
  const out = { folders: (await c.list()).map(f => [f.path, f.specialUse || '']) };
  const lock = await c.getMailboxLock('INBOX');
  const added = await c.append('INBOX', 'Subject: flow\\r\\nContent-Type: text/plain; charset=utf-8\\r\\n\\r\\nGr\\u00fc\\u00dfe\\r\\n', ['\\\\Seen']);
  out.uid = added.uid;
  await c.messageFlagsAdd({ uid: '1:*' }, ['\\\\Flagged', 'Custom'], { uid: true });
  const one = await c.fetchOne('*', { envelope: true, flags: true, bodyStructure: true, source: true, uid: true, size: true, internalDate: true });
  out.subject = one.envelope.subject; out.flags = [...one.flags]; out.type = one.bodyStructure.type; out.size = one.size;
  out.source = one.source.toString();
  out.found = await c.search({ body: 'gr\\u00fc\\u00dfe' }, { uid: true });
  await c.mailboxCreate('Projekte/\\u00dcbung');
  out.moved = (await c.messageMove({ uid: '' + added.uid }, 'Projekte/\\u00dcbung', { uid: true })).uidMap.size;
  out.status = await c.status('Projekte/\\u00dcbung', { messages: true, unseen: true, uidNext: true });
  const pushed = new Promise(resolve => c.on('exists', e => resolve(e.count)));
  console.log('IDLE'); c.idle();
  out.pushed = await pushed;
  lock.release();
  await c.mailboxDelete('Projekte/\\u00dcbung');
  await c.logout();
  console.log(JSON.stringify(out));
})().catch(e => { console.error(e); process.exit(1); });
"""


@pytest.mark.skipif(not shutil.which("npm"), reason="npm is not installed")
def test_imapflow(instance, tmp_path):
    nodejs._install(["imapflow"])
    script = tmp_path / "flow.js"
    script.write_text(FLOW)
    p = subprocess.Popen(["node", script, str(instance.port["imaps"]), instance.data / "self-made.pem"],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                         env={**os.environ, "NODE_PATH": str(nodejs.FOLDER / "node_modules")})
    killer = threading.Timer(60 * SLOW, p.kill)
    killer.start()
    first = p.stdout.readline()
    assert first == "IDLE\n", first + p.stderr.read()
    time.sleep(0.5)
    deliver(instance, message("for flow"))
    rest, err = p.communicate()
    killer.cancel()
    assert p.returncode == 0, err
    out = json.loads(rest)
    assert ["Sent", "\\Sent"] in out["folders"]
    assert out["subject"] == "flow" and out["type"] == "text/plain" and out["moved"] == 1
    assert set(out["flags"]) >= {"\\Seen", "\\Flagged", "Custom"}
    assert out["source"].endswith("\r\n\r\nGrüße\r\n") and out["size"] == len(out["source"].encode())
    assert out["found"] == [out["uid"]]
    assert out["status"]["messages"] == 1 and out["status"]["unseen"] == 0
    assert out["pushed"] == 1
