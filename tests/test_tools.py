"""bulkhead(8) on configurations that no daemon runs with: conf, check, map, newaliases, trace, user."""
import os
import pty
import re
import shutil
import signal
import stat
import subprocess
import termios

import pytest

from instance import BIN, DAEMONS, ROOT, SLOW, Instance, wait
from test_check import certificate

needs_setsid = pytest.mark.skipif(not shutil.which("setsid"), reason="setsid is not installed")


@pytest.fixture
def idle(tmp_path):
    """An instance that is not started; its daemons' programs need only exist."""
    programs = tmp_path / "libexec"
    programs.mkdir()
    for name in ("master", "smtpd", "submission", "login", *DAEMONS):
        (programs / name).symlink_to(BIN / "bulkhead")
    return Instance(tmp_path / "i", main={"daemon_directory": programs})


def conf(i, *words, check=True):
    return i.tool("conf", *words, check=check)


# --- conf ---

def test_conf_shows_as_postconf_does(idle):
    assert conf(idle, "myhostname").stdout == "myhostname = mx.example.test\n"
    assert conf(idle, "-h", "myhostname").stdout == "mx.example.test\n"
    assert conf(idle, "-d", "mydestination").stdout == \
        "mydestination = $myhostname, localhost.$mydomain, localhost\n"
    assert conf(idle, "-x", "mydestination").stdout == "mydestination = mx.example.test, localhost\n"
    assert conf(idle, "relayhost").stdout == "relayhost =\n"
    names = [line.split(" =")[0] for line in conf(idle, "-n").stdout.splitlines()]
    assert names == sorted(idle.parameters())
    everything = conf(idle).stdout.splitlines()
    assert len(everything) > 200 and everything == sorted(everything, key=lambda s: s.split(" =")[0])


def test_conf_unknown_names(idle):
    for name, text in (("mydestinaton", "unknown parameter mydestinaton: did you mean mydestination?"),
                       ("smtpd_relay_restrictions", "of Postfix is not supported: it would say who may relay"),
                       ("mail_location", "of Dovecot is not supported")):
        done = conf(idle, name, check=False)
        assert done.returncode == 1 and text in done.stderr


def test_conf_edits_in_place(idle):
    path = idle.etc / "main.cf"
    path.write_text("# top\n" + path.read_text() + "\n# a list\nrelay_domains = a.test,\n  # inside\n  b.test\n# end\n")
    path.chmod(0o640)
    before = path.read_text()
    conf(idle, "relay_domains=c.test", "message_size_limit = 10M")
    after = path.read_text()
    assert after == before.replace("relay_domains = a.test,\n  # inside\n  b.test\n", "relay_domains = c.test\n  # inside\n") \
        + "message_size_limit = 10M\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert conf(idle, "-h", "message_size_limit").stdout == "10M\n"
    conf(idle, "-#", "message_size_limit")
    assert path.read_text().endswith("#message_size_limit = 10M\n")
    conf(idle, "-X", "relay_domains")
    assert "relay_domains" not in path.read_text()


def test_conf_refuses_an_edit_that_breaks(idle):
    before = (idle.etc / "main.cf").read_text()
    for word, text in (("mydestinaton=a", "did you mean mydestination?"),
                       ("smtpd_timeout=soon", "'soon' is not a time"),
                       ("smtpd_recipient_limit=0", "out of bounds"),
                       ("smtpd_banner=$nothing", "$nothing is not defined"),
                       ("header_checks=pcre:/x", "not supported")):
        done = conf(idle, word, check=False)
        assert done.returncode == 1 and text in done.stderr, done.stderr
    assert (idle.etc / "main.cf").read_text() == before
    assert conf(idle, "myhostname", "a=b", check=False).returncode == 64
    for words, text in ((("-e", "relayhost"), "'relayhost' is not NAME=VALUE"), (("-X", "relayhost=x"), "is not a NAME alone"),
                        (("#x=y",), "is not NAME=VALUE"), (("x\nmynetworks=0.0.0.0/0",), "is not NAME=VALUE"),
                        (("mynetworks=a\nb",), "is not NAME=VALUE of one line")):
        done = conf(idle, *words, check=False)
        assert done.returncode == 64 and text in done.stderr, (words, done.stderr)
        assert (idle.etc / "main.cf").read_text() == before
    done = conf(idle, "-X", "relayhst")
    assert "relayhst is not set in main.cf: nothing to change" in done.stderr


def test_edits_at_once_are_all_there(idle):
    names = ("smtpd_timeout", "smtp_helo_timeout", "smtp_mail_timeout", "smtp_rcpt_timeout", "smtp_data_init_timeout",
             "smtp_data_xfer_timeout", "smtp_data_done_timeout", "smtp_rset_timeout", "smtp_quit_timeout", "stop_timeout")
    all_of_them = [subprocess.Popen([BIN / "bulkhead", "-c", idle.etc, "conf", f"{name}=42s"]) for name in names]
    assert [p.wait(60) for p in all_of_them] == [0] * len(names)
    for name in names:
        assert conf(idle, "-h", name).stdout == "42s\n", name


def test_conf_services(idle):
    text = conf(idle, "-M").stdout
    assert f"127.0.0.1:{idle.port['smtp']} inet n y y - - smtpd\n" in text
    assert "    -o smtpd_tls_wrappermode=yes\n" in text
    assert conf(idle, "-M", "qmgr").stdout.split() == "qmgr unix n y y - 1 qmgr".split()
    done = conf(idle, "-M", "qmrg", check=False)
    assert done.returncode == 1 and "master.cf has no row for the service qmrg" in done.stderr


# --- check: see test_check.py for the table; here what depends on more than one line ---

def check(i):
    done = i.tool("check", check=False)
    return done.returncode, done.stdout


def test_check_of_a_good_instance(idle):
    status, text = check(idle)
    assert (status, text) == (0, "")


def test_check_needs_users_or_uid_base(idle):
    if os.geteuid():
        pytest.skip("daemons of an ordinary user have its uid")
    idle.set(uid_base="0")
    status, out = check(idle)
    assert status == 78 and "the daemons have no users: bh-smtpd bh-submit" in out and "set uid_base" in out


def test_check_warns_about_root(idle):
    (idle.etc / "aliases").write_text("postmaster: u1@example.test\n")
    status, out = check(idle)
    assert status == 0
    assert "warning: mail for root is deferred: no alias says who reads it: add a line to the aliases, as in root: yourname" in out


def test_check_modes(idle):
    (idle.etc / "main.cf").chmod(0o666)
    status, out = check(idle)
    assert status == 78 and "main.cf: can be written by everybody (mode 0666): chmod go-w" in out


def test_check_of_the_folder_of_the_configuration(idle):
    """Who may write there puts another main.cf in its place."""
    idle.etc.chmod(0o777)
    status, out = check(idle)
    assert status == 78 and f"{idle.etc}: can be written by everybody (mode 0777): chmod go-w" in out
    idle.etc.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(idle.etc / "main.cf", 0, 12345)
        (idle.etc / "main.cf").chmod(0o664)
        status, out = check(idle)
        assert status == 0 and re.search(r"main.cf: warning: can be written by the group 12345, .*: chmod g-w", out)


def test_check_does_not_follow_what_a_daemon_made(idle, tmp_path):
    """Names and links in the queue are of qmgr, which may be taken over."""
    if os.geteuid():
        pytest.skip("needs other uids")
    uid, queue, other = idle.uid_base + 9, idle.spool / "queue", tmp_path / "other"
    (queue / "a;reboot").mkdir(parents=True)
    other.mkdir()
    (other / "secret").touch()
    (queue / "link").symlink_to(other)
    for path in (queue / "a;reboot", queue / "link"):
        os.chown(path, uid, uid, follow_symlinks=False)
    assert check(idle) == (0, "")
    (queue / "a;reboot" / "x\033[2J\nforged").touch()
    status, out = check(idle)
    assert status == 78 and out.count("\n") == 1 and "a;reboot/x?[2J?forged belongs to uid 0, but qmgr has uid" in out
    assert out.endswith(f"chown -R {uid}:{uid} {queue}\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="binds /etc/passwd")
@pytest.mark.parametrize("name,offset,what", [("virtual_uid_base", 7, "virtual users"), ("uid_base", 99, "daemons")])
def test_check_of_people_in_the_ranges(idle, tmp_path, name, offset, what):
    base = idle.uid_base + (200 if name == "virtual_uid_base" else 0)
    etc = tmp_path / "etc"
    etc.mkdir()
    for file in ("group", "nsswitch.conf", "resolv.conf", "services"):
        shutil.copy(f"/etc/{file}", etc)
    (etc / "passwd").write_text(f"root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\nann:x:{base + offset}:100::/home/ann:/bin/sh\n")
    line = 'mount --bind "$0" /etc && exec "$@"'  # all of it: useradd of another test renames a new passwd into its place
    done = subprocess.run(["unshare", "--mount", "sh", "-c", line, etc, BIN / "bulkhead", "-c", idle.etc, "check"],
                          capture_output=True, text=True, check=False)
    if "unshare" in done.stderr:
        pytest.skip("no mount namespaces here")
    assert done.returncode == 0 and re.search(
        rf"warning: {name} = {base}: uid {base + offset}, of the user ann, is among those of {what}: move it, or that user", done.stdout)


def test_check_certificates(idle):
    for days, text in ((-1, "the certificate has expired: get a new one"),
                       (4.5, "warning: .*the certificate expires in 4 days: get a new one"), (90, "^$")):
        certificate(idle.etc, "c.pem", "k.pem", days)
        idle.set(smtpd_tls_cert_file=idle.etc / "c.pem", smtpd_tls_key_file=idle.etc / "k.pem")
        status, out = check(idle)
        assert re.search(text, out), out
        assert status == (78 if days < 0 else 0)


def test_check_tells_all_at_once(idle):
    idle.set(alias_maps="hash:/nowhere", admin_group="nosuchgroup", smtpd_timeout="x", mydestinaton="y",
             smtpd_tls_cert_file="/nowhere")
    (idle.etc / "master.cf").write_text((idle.etc / "master.cf").read_text() + "bad row\n")
    status, out = check(idle)
    assert status == 78
    for text in ("alias_maps", "nosuchgroup", "smtpd_timeout", "mydestinaton", "smtpd_tls_cert_file", "bad row"):
        assert text in out
    for line in out.splitlines():
        assert re.match(r"/\S+/(main|master)\.cf(:\d+)?: .+", line), line


# --- tables ---

def test_map_build_and_query(idle):
    (idle.etc / "virtual").write_text("# comment\na@b.test c@d.test\nx y\n  z\n")
    done = idle.tool("map", "build", idle.etc / "virtual")
    assert done.stdout == f"{idle.etc}/virtual.lmdb: 2 entries\n"
    for table in (f"lmdb:{idle.etc}/virtual", f"texthash:{idle.etc}/virtual", "inline:{a@b.test=c@d.test}"):
        assert idle.tool("map", "query", table, "a@b.test").stdout == "c@d.test\n"
        assert idle.tool("map", "query", table, "nobody", check=False).returncode == 1
    assert idle.tool("map", "query", "unix:passwd.byname", "root").stdout.startswith("root:0:0:")
    assert idle.tool("map", "check", "pcre:/nowhere", check=False).returncode == 1


def test_newaliases(idle):
    for text, status in (("root: a, b\n\"quoted:name\": c\n", 0), ("root a\n", 65), ("root: \"open\n", 65)):
        (idle.etc / "aliases").write_text(text)
        done = subprocess.run([BIN / "newaliases"], env={**os.environ, "MAIL_CONFIG": str(idle.etc)}, capture_output=True,
                              text=True)
        assert done.returncode == status, done.stderr
        if status:
            assert f"{idle.etc}/aliases:1: " in done.stderr
    (idle.etc / "aliases").unlink()
    (idle.etc / "aliases").mkdir()
    done = idle.tool("aliases", check=False)
    assert done.returncode == 66 and f"{idle.etc}/aliases: Is a directory: correct alias_database" in done.stderr
    assert done.stdout == ""
    (idle.etc / "aliases").rmdir()
    (idle.etc / "aliases").write_text("root: a\n")
    idle.set(alias_maps=f"lmdb:{idle.etc}/aliases")
    assert f"{idle.etc}/aliases.lmdb: 1 entries" in idle.tool("aliases").stdout
    for table in (f"lmdb:{idle.etc}/aliases", f"hash:{idle.etc}/aliases"):
        assert idle.tool("map", "query", table, "root").stdout == "a\n"
        done = idle.tool("map", "query", table, "nobody-there", check=False)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


# --- users while the suite is down ---

def test_users_while_down(idle):
    idle.add_user("alice@example.test", "secret", "sender=al@example.test")
    assert idle.tool("user", "check", "alice@example.test", input="secret\n").stdout.endswith("the password fits\n")
    assert idle.tool("user", "check", "alice@example.test", input="wrong\n", check=False).returncode == 1
    assert "sender: al@example.test" in idle.tool("user", "show", "alice@example.test").stdout
    home = idle.home("alice@example.test").stat()
    assert stat.S_IMODE(home.st_mode) == 0o700
    if os.geteuid() == 0:
        assert home.st_uid >= idle.uid_base
    idle.tool("user", "passwd", "alice@example.test", input="o" * 1022 + "\n")
    done = idle.tool("user", "passwd", "alice@example.test", input="o" * 1023 + "\n", check=False)
    assert done.returncode == 64 and "longer than 1022 bytes" in done.stderr  # never cut
    idle.tool("user", "check", "alice@example.test", input="o" * 1022 + "\n")
    idle.tool("user", "passwd", "alice@example.test", input="other\n")
    idle.tool("user", "check", "alice@example.test", input="other\n")
    idle.tool("user", "del", "alice@example.test")
    assert "alice" not in idle.tool("user", "list").stdout
    assert idle.tool("user", "add", "bob", input="", check=False).returncode == 64


@pytest.fixture
def at_terminal(idle):
    """at_terminal() gives `user add` that asks for a password, both ends of its terminal, and what it has shown."""
    leader, terminal = pty.openpty()
    started = []

    def make():
        p = subprocess.Popen(["env", "--default-signal", "setsid", "-c", BIN / "bulkhead", "-c", idle.etc, "user", "add",
                              "carol@example.test"],  # who runs the tests may ignore some
                             stdin=terminal, stdout=terminal, stderr=terminal)
        started.append(p)
        return p, leader, terminal, bytearray()

    yield make
    for p in started:
        p.kill()
        p.wait()
    os.close(leader), os.close(terminal)


def echoes(terminal):
    return bool(termios.tcgetattr(terminal)[3] & termios.ECHO)


def await_prompt(leader, terminal, shown, text):
    while not shown.endswith(text):
        shown += os.read(leader, 1000)
    wait(lambda: not echoes(terminal), 20, "the terminal without echo")


@needs_setsid
@pytest.mark.parametrize("sent", ["^C", signal.SIGTERM, signal.SIGHUP], ids=str)
def test_the_terminal_echoes_after_a_signal(at_terminal, sent):
    p, leader, terminal, shown = at_terminal()
    await_prompt(leader, terminal, shown, b"password: ")
    if sent == "^C":
        os.write(leader, b"\x03")
    else:
        p.send_signal(sent)
    assert p.wait(20 * SLOW) == -(signal.SIGINT if sent == "^C" else sent)
    assert echoes(terminal)


@needs_setsid
def test_a_password_is_typed_unseen(idle, at_terminal):
    p, leader, terminal, shown = at_terminal()
    await_prompt(leader, terminal, shown, b"password: ")
    os.write(leader, b"\x1a")  # it is alone on its terminal: nobody could let it go on, so the kernel does not stop it
    await_prompt(leader, terminal, shown, b"password: \r\npassword: ")
    os.write(leader, b"secret\n")
    await_prompt(leader, terminal, shown, b"once more: ")
    os.write(leader, b"secret\n")
    assert p.wait(20 * SLOW) == 0 and echoes(terminal)
    assert b"secret" not in shown + os.read(leader, 1000)
    idle.tool("user", "check", "carol@example.test", input="secret\n")


# --- without the suite ---

def test_suite_down(idle):
    for words in (("status",), ("queue", "list"), ("reload",), ("security",), ("stop",)):
        done = idle.tool(*words, check=False)
        assert done.returncode == 69 and "the suite does not run" in done.stderr and "bulkhead start starts it" in done.stderr
    assert idle.tool("nonsense", check=False).returncode == 64


LOG = """\
2026-11-25T20:00:00.000001Z mx bulkhead/smtpd-child[7]: connect sid=S1 client=192.0.2.1
2026-11-25T20:00:00.100000Z mx bulkhead/smtpd-child[7]: accepted sid=S1 qid=OTHER from=<x>
2026-11-25T20:00:00.200000Z mx bulkhead/smtpd-child[7]: recipient sid=S1 to=<a@example.test> reason="not qid=QQ"
2026-11-25T20:00:00.250000Z mx bulkhead/smtpd-child[7]: accepted sid=S1 qid=QQ from=<a@b>
2026-11-25T20:00:00.240000Z mx bulkhead/qmgr[8]: queued qid=QQ size=10
2026-11-25T20:00:01.250000Z mx bulkhead/delivery[9]: warning: deferred qid=QQ to=<a@example.test> reason="mailbox full"
2026-11-25T20:00:02.250000Z mx bulkhead/smtpd-child[7]: disconnect sid=S2 client=192.0.2.2
2026-11-27T20:00:02.000001Z mx bulkhead/qmgr[8]: second qid=QQ
2026-11-27T20:00:02.000001Z mx bulkhead/qmgr[8]: first qid=QQ
"""


def test_trace(idle):
    idle.log_file.write_text(LOG)
    out = idle.tool("trace", "QQ").stdout.splitlines()
    assert out[0] == "message QQ, first seen 2026-11-25T20:00:00.000001Z"
    assert [line.split()[3] for line in out[1:]] == ["connect", "recipient", "queued", "accepted", "deferred",
                                                        "second", "first"]  # the same moment: as the log has them
    assert out[6].split()[0] == "+172802000"  # days later
    assert out[5].split(None, 3)[:3] == ["+1250", "ms", "delivery"]
    assert 'reason="mailbox full"' in out[5] and "qid=" not in out[5]
    done = idle.tool("trace", "NONE", check=False)
    assert done.returncode == 1 and "no line names NONE" in done.stderr
    done = idle.tool("trace", "-f", "/nowhere", "QQ", check=False)
    assert done.returncode == 66 and "/nowhere: No such file or directory" in done.stderr


@pytest.mark.parametrize("times, shown", [
    (["2026-11-30T23:59:59.900000Z", "2026-12-01T00:00:00.000000Z", "2027-01-01T00:00:00.000000Z"], ["+0", "+100", "+2678400100"]),
    # of a syslog daemon, when summer time ends
    (["2026-10-25T02:59:59.000000+02:00", "2026-10-25T02:00:00.500000+01:00", "2026-10-24T20:00:01.000000-05:00"],
     ["+0", "+1500", "+2000"]),
    (["Nov 30 23:59:59", "Dec  1 00:00:00", "Jan  1 00:00:00"], ["Nov", "Dec", "Jan"]),
    (["Oct 31 23:59:59", "2026-10-31T23:59:59.500000Z", "Nov  1 00:00:00"], ["Oct", "2026-10-31T23:59:59.500000Z", "Nov"]),
], ids=["utc", "offsets", "syslog", "mixed"])
def test_trace_over_the_end_of_a_month_or_year(idle, times, shown):
    idle.log_file.write_text("".join(f"{at} mx bulkhead/qmgr[8]: event{n} qid=QQ\n" for n, at in enumerate(times)))
    out = idle.tool("trace", "QQ").stdout.splitlines()
    assert out[0] == f"message QQ, first seen {times[0]}"
    assert [line.split()[0] for line in out[1:]] == shown
    assert [re.search(r"event(\d)", line)[1] for line in out[1:]] == ["0", "1", "2"]


def test_pages_are_clean():
    """The generated pages of main.cf(5) and bulkhead-log(5), which `make lint` does not see."""
    for page in ("gen/conf/main.cf.5", "gen/daemon/bulkhead-log.5"):
        done = subprocess.run(["mandoc", "-Tlint", "-Wwarning", BIN.parent / page], capture_output=True, text=True)
        assert done.stdout == ""


def test_an_event_of_the_log_explains_itself(idle):
    done = idle.tool("log", "--explain", "queue-corrupt", "auth-failed")
    assert "queue-corrupt (error), of qmgr" in done.stdout and "to do: The file begins with the message" in done.stdout
    assert "auth-failed (warning), of auth" in done.stdout
    assert "queue-corrupt            error" in idle.tool("log", "--list").stdout
    done = idle.tool("log", "--explain", "queue-corupt", check=False)
    assert done.returncode == 1 and "no such event: queue-corupt" in done.stderr


def test_shipped_configuration_is_good():
    done = subprocess.run([BIN / "bulkhead", "-c", ROOT / "conf", "conf", "-M"], capture_output=True, text=True)
    assert done.returncode == 0 and "smtp " in done.stdout
    done = subprocess.run([BIN / "bulkhead", "-c", ROOT / "conf", "check"], capture_output=True, text=True)
    for line in done.stdout.splitlines():  # what a fresh machine lacks is no fault of the text
        assert re.search(r"/etc/aliases|have no users|port \d+|No such file", line), line


def test_check_of_transports(make_instance):
    """What transport_maps lead to: by line where the table is text."""
    i = make_instance(start=False)
    text = i.etc / "transport"
    text.write_text("# ways\na.test smtp:[192.0.2.1]\nb.test slow:[192.0.2.1]\nc.test lmtp:unix:/run/lmtp\n"
                    "d.test :[192.0.2.1]:2626\ne.test\n   smtp:[192.0.2.1]:submission\nf.test error:5.1.1 a: b\n")
    patterns = i.etc / "patterns"
    patterns.write_text("if /x/\n/^a b@/  smtp:h.test:2627\nendif\n/y\\/@/i smpt:\n")
    i.set(transport_maps=f"texthash:{text} pcre:{patterns} inline:{{ z.test=stmp:x }}")
    out = i.tool("check", check=False).stdout
    assert f"{text}:3: there is no transport 'slow': use local, virtual, smtp," in out
    assert f"{text}:4: 'unix:/run/lmtp' is out of reach" in out
    assert f"{text}:5: warning: the jail of smtp-client lets no connection to port 2626 through: add 2626 to smtp_client_ports" in out
    assert f"{patterns}:2: warning: the jail of smtp-client lets no connection to port 2627" in out
    assert f"{patterns}:4: there is no transport 'smpt'" in out
    assert re.search(r"main.cf:\d+: inline:.* there is no transport 'stmp'", out)
    assert len(re.findall(r"transport '|out of reach|jail of smtp-client", out)) == 6, out
    i.set(smtp_client_ports="25 587 2626", transport_maps=f"texthash:{text}")
    assert "jail of smtp-client" not in i.tool("check", check=False).stdout
