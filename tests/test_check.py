"""Broken configurations: `bulkhead check` names each with file, line and remedy, and a running suite that is told to
reload it says the same, refuses, and goes on with the old one."""
import os
import re
import smtplib
import socket
import subprocess
import time

import pytest

from instance import BIN, DAEMONS, SLOW, Instance, wait

MAIN, MASTER = r"/main\.cf:LINE: ", r"/master\.cf:LINE: "

# name, what is put at the end of main.cf or master.cf (a text, or NAME = VALUE), the line of the answer: LINE is where it
# stands there, or any for what follows from several; ETC the folder of the configuration, PORT that of smtp, TAKEN one that
# another server has.
BROKEN = [
    # text of main.cf
    ("no-equals", "main", "smtpd_banner", MAIN + "'smtpd_banner' has no =: write name = value, or begin the line with #"),
    ("no-name", "main", "smtpd banner = a", MAIN + "'smtpd banner' is not a name: a name has letters, digits and _ only"),
    ("misspelt", "main", "mydestinaton = a", MAIN + r"unknown parameter mydestinaton: did you mean mydestination\?"),
    ("unknown", "main", "colour = red", MAIN + r"unknown parameter colour: remove it, or refer to it by \$"),
    ("of-postfix", "main", "smtpd_relay_restrictions = permit", MAIN + "smtpd_relay_restrictions of Postfix is not supported: it "
     "would say who may relay.*: .+"),
    ("of-dovecot", "main", "mail_location = maildir:~/Maildir", MAIN + "mail_location of Dovecot is not supported: it would .+: .+"),
    ("no-number", "main", "smtpd_recipient_limit = ten", MAIN + "smtpd_recipient_limit = ten: 'ten' is not a number"),
    ("out-of-bounds", "main", "smtpd_recipient_limit = 0", MAIN + "smtpd_recipient_limit = 0: 0 is out of bounds: it must be 1 to"),
    ("no-time", "main", "smtpd_timeout = soon", MAIN + "smtpd_timeout = soon: 'soon' is not a time: write a number with ms, s, m"),
    ("no-size", "main", "message_size_limit = 10Q", MAIN + "message_size_limit = 10Q: '10Q' is not a size: write .*K, M, G"),
    ("no-bool", "main", "direct_delivery = maybe", MAIN + "direct_delivery = maybe: 'maybe' is neither yes nor no"),
    ("no-such-word", "main", "inet_protocols = ipv5", MAIN + "inet_protocols = ipv5: 'ipv5' is none of all, ipv4, ipv6"),
    ("no-such-variable", "main", "smtpd_banner = $nothing", MAIN + r".*\$nothing is not defined: set it, or write \$\$"),
    ("itself", "main", "smtpd_banner = $smtpd_banner", MAIN + r".*\$smtpd_banner refers to itself: name another one"),
    ("no-brace", "main", "smtpd_banner = ${a", MAIN + "smtpd_banner = .*: missing } behind '.*a'"),
    ("no-network", "main", "smtpd_client_event_limit_exceptions = localhost", MAIN + r".*'localhost' is not a network as 192.0.2.0/24 "
     r"or \[2001:db8::\]/32"),
    ("no-interface", "main", "inet_interfaces = eth0", MAIN + "inet_interfaces = eth0: 'eth0' is not all, loopback-only or an address"),
    ("no-transport", "main", "default_transport = smpt", MAIN + "default_transport = smpt: 'smpt' is not local, smtp:NEXTHOP"),
    ("no-path", "main", "queue_directory = spool", MAIN + "queue_directory = spool: 'spool' is not a path that begins with /"),
    ("no-resolver", "main", "dns_resolvers = 127.0.0.1:99999", MAIN + "dns_resolvers = .* is not an address, or an address and a port"),
    ("two-limits", "main", "smtpd_hard_error_limit = 5", MAIN + "smtpd_soft_error_limit = 10 is above smtpd_hard_error_limit = 5: "
     "change one of the two"),
    ("two-owners", "main", "relay_domains = example.test", MAIN + "example.test is listed in both virtual_mailbox_domains and "
     "relay_domains: remove it from one of the two"),
    ("no-mailname", "main", "myorigin = /nowhere/name", MAIN + "myorigin = .*No such file or directory: create it, or write the domain"),
    ("no-mechanism", "main", "auth_mechanisms = PLAIN CRAM-MD5", MAIN + "auth_mechanisms = CRAM-MD5: 'CRAM-MD5' is not PLAIN, LOGIN, "
     "SCRAM-SHA-256"),
    ("no-ascii", "main", "relay_domains = b\u00fccher.test", MAIN + "relay_domains = b\u00fccher.test: 'b\u00fccher.test' is not written "
     "in ASCII, as xn--"),
    ("no-lock", "main", "mailbox_delivery_lock = flock", MAIN + "mailbox_delivery_lock = flock: 'flock' is not fcntl or dotlock"),
    ("no-way", "main", "allow_mail_to_commands = aliases", MAIN + "allow_mail_to_commands = aliases: 'aliases' is not alias, forward"),
    ("no-files", "main", "allow_mail_to_files = all", MAIN + "allow_mail_to_files = all: 'all' is not alias, forward or include"),
    ("no-extension", "main", "propagate_unmatched_extensions = alias", MAIN + "propagate_unmatched_extensions = alias: 'alias' is not "
     "canonical or virtual"),
    ("no-notice", "main", "notify_classes = bounces", MAIN + "notify_classes = bounces: 'bounces' is not bounce, 2bounce or delay"),
    ("no-authority", "main", "auth_external = yes", MAIN + "auth_external = yes: no authority is named .*: set smtpd_tls_CAfile"),
    ("no-dane", "main", "smtp_tls_security_level = dane", MAIN + "smtp_tls_security_level: .*not supported yet: use may, encrypt, "
     "verify or secure"),
    # text of master.cf
    ("short-row", "master", "25 inet n - y", MASTER + "the row '25 inet n - y' has fewer than 8 fields: write: service type private"),
    ("no-type", "master", "25 tcp n - y - - smtpd", MASTER + "type: 'tcp' is none of inet, unix and pass"),
    ("no-limit", "master", "25 inet n - y - lots smtpd", MASTER + "maxproc: 'lots' is not a number up to 100000 or -"),
    ("no-daemon", "master", "25 inet n - y - - sntpd", MASTER + "service 25: sntpd is not a daemon of the suite: use one of smtpd"),
    ("bad-override", "master", "PORT2 inet n - y - - smtpd -o smtpd_bannr=x", MASTER + "unknown parameter smtpd_bannr: did you mean "
     r"smtpd_banner\?"),
    ("bare-override", "master", "PORT2 inet n - y - - smtpd -o smtpd_timeout", MASTER + "-o 'smtpd_timeout' has no =: write -o name=value"),
    ("twice", "master", "127.0.0.1:PORT inet n - y - - smtpd", MASTER + "service .* stands in line 1 already: remove one of the two"),
    ("two-rows-one-port", "master", "PORT inet n - y - - submission", MASTER + r"service \d+: listens where service 127.0.0.1:\d+ of line "
     "1 does: remove one of the two"),
    ("long-name", "master", "x" * 140 + ":25 inet n - y - - smtpd", MASTER + "the service name 'x+...' has more than 128 bytes: shorten it"),
    ("one-qmgr", "master", "qmgr2 unix n - y - - qmgr", MASTER + r"qmgr is started by line \d+ already: remove one of the two"),
    ("no-port", "master", "1025 inet n - y - - pickup", MASTER + "service 1025: pickup does not listen on a port: write unix"),
    ("other-machine", "master", "192.0.2.1:PORT2 inet n - y - - smtpd", MASTER + "service .*: Cannot assign requested address: name an "
     "address of this machine"),
    ("port-taken", "master", "127.0.0.1:TAKEN inet n - y - - smtpd", MASTER + "service .*: Address already in use: stop the other "
     r"server \(ss -ltnp shows it\), or choose another port"),
    ("no-program", "main", "daemon_directory = /nowhere", r"/master\.cf:\d+: service qmgr: /nowhere/qmgr: No such file or directory: "
     "correct daemon_directory, or install the program"),
    # what they name
    ("no-table", "main", "alias_maps = hash:/nowhere/aliases", MAIN + "alias_maps: hash:/nowhere/aliases: cannot read "
     "/nowhere/aliases: No such file or directory; create the file or correct the name"),
    ("no-table-of-domains", "main", "relay_domains = a.test, !texthash:/nowhere/domains", MAIN + "relay_domains: texthash:/nowhere/domains: "
     "cannot read /nowhere/domains: No such file or directory; create the file or correct the name"),
    ("table-not-built", "main", "virtual_alias_maps = lmdb:ETC/virtual", MAIN + "virtual_alias_maps: lmdb:.*/virtual: cannot read "
     r".*/virtual.lmdb: .*; create the file \(bulkhead map, newaliases\)"),
    ("table-corrupt", "main", "virtual_alias_maps = lmdb:ETC/corrupt", MAIN + "virtual_alias_maps: lmdb:.*/corrupt: cannot open .*; "
     "build it with bulkhead map or newaliases"),
    ("bad-table", "main", "transport_maps = cidr:ETC/bad", MAIN + "transport_maps: .*/bad: line 1 is not an address or network: write it as"),
    ("no-type-of-table", "main", "alias_maps = has:/etc/aliases", MAIN + "alias_maps = .*is not a table: write type:name with one of"),
    ("ldap", "main", "alias_maps = ldap:/etc/ldap.cf", MAIN + "alias_maps = .*: tables of type ldap are not supported: use lmdb"),
    ("secret-for-all", "main", "smtp_sasl_password_maps = hash:ETC/open", MAIN + "smtp_sasl_password_maps: .*/open holds passwords and "
     "has mode 0644: chmod 600 it"),
    ("no-certificate", "main", "smtpd_tls_cert_file = /nowhere/cert.pem", MAIN + "smtpd_tls_cert_file = /nowhere/cert.pem: No such file "
     "or directory: create it, correct the name, or remove the line"),
    ("text-for-certificate", "main", "smtpd_tls_cert_file = ETC/aliases", MAIN + "smtpd_tls_cert_file = .*/aliases: .*: give a PEM file"),
    ("key-of-another", "main", "smtpd_tls_cert_file = ETC/c.pem\nsmtpd_tls_key_file = ETC/other.pem", r"/main\.cf:\d+: "
     "smtpd_tls_cert_file = .*/c.pem: .*: give a PEM file with the certificate first, and the key that belongs to it"),
    ("expired", "main", "smtpd_tls_cert_file = ETC/old.pem\nsmtpd_tls_key_file = ETC/k.pem", r"/main\.cf:\d+: smtpd_tls_cert_file = "
     ".*/old.pem: the certificate has expired: get a new one"),
    ("key-for-all", "main", "smtpd_tls_cert_file = ETC/c.pem\nsmtpd_tls_key_file = ETC/openkey.pem", r"/main\.cf:\d+: "
     "smtpd_tls_key_file = .*: holds a private key and has mode 0644: chmod 600 it"),
    ("no-client-certificate", "main", "smtp_tls_cert_file = /nowhere/c.pem", MAIN + "smtp_tls_cert_file = /nowhere/c.pem: No such file"),
    ("key-of-another-client", "main", "smtp_tls_cert_file = ETC/c.pem\nsmtp_tls_key_file = ETC/other.pem", r"/main\.cf:\d+: "
     "smtp_tls_cert_file = .*/c.pem: .*: give a PEM file with the certificate first, and the key that belongs to it"),
    ("client-key-for-all", "main", "smtp_tls_cert_file = ETC/c.pem\nsmtp_tls_key_file = ETC/openkey.pem", r"/main\.cf:\d+: "
     "smtp_tls_key_file = .*: holds a private key and has mode 0644: chmod 600 it"),
    ("key-of-nothing", "main", "smtp_tls_key_file = ETC/k.pem", MAIN + "smtp_tls_key_file = .*: is the key of no certificate: set "
     "smtp_tls_cert_file, or remove it"),
    ("text-for-authorities", "main", "smtp_tls_CAfile = ETC/aliases", MAIN + "smtp_tls_CAfile = .*/aliases: .*: give a PEM file of the "
     "certificates of authorities"),
    ("no-client-authorities", "main", "auth_external = yes\nsmtpd_tls_CAfile = /nowhere/ca.pem", MAIN + "smtpd_tls_CAfile = "
     "/nowhere/ca.pem: No such file or directory: create it"),
    ("no-cipher", "main", "tls_ciphers = ROT13", MAIN + "tls_ciphers = ROT13: TLS cipher list: .*: write it as openssl-ciphers"),
    ("open-text-of-secrets", "main", "smtp_sasl_password_maps = lmdb:ETC/open", MAIN + "smtp_sasl_password_maps: .*/open holds passwords "
     "and has mode 0644: chmod 600 it"),
    ("no-ca", "main", "smtp_tls_CAfile = /nowhere/ca.pem", MAIN + "smtp_tls_CAfile = /nowhere/ca.pem: No such file or directory: create it"),
    ("link-to-nothing", "main", "data_directory = ETC/dangling", MAIN + "data_directory = .*: is a link to nothing: make the folder"),
    ("folder-for-program", "main", "daemon_directory = ETC/programs", r"/master\.cf:\d+: service qmgr: .*/programs/qmgr: Is a directory: "
     "correct daemon_directory"),
    ("no-folder", "main", "virtual_mailbox_base = ETC/aliases", MAIN + "virtual_mailbox_base = .*: is not a folder: name a folder"),
    ("folder-in-file", "main", "data_directory = ETC/aliases/x", MAIN + "data_directory = .*: Not a directory: correct the name"),
    ("no-group", "main", "admin_group = nosuchgroup", MAIN + "admin_group = nosuchgroup: no such group: create it, or correct the name"),
    ("no-user", "main", "default_privs = nosuchuser", MAIN + "default_privs = nosuchuser: no such user: create it, or correct the name"),
    ("low-uids", "main", "first_valid_uid = 4000000", r"/main\.cf:\d+: virtual_uid_base = \d+ is below first_valid_uid = 4000000: raise it"),
    ("metrics-taken", "both", "metrics_listen = 127.0.0.1:TAKEN", MAIN + "metrics_listen = .*: Address already in use: stop the other server"),
]
NAMES = [case[0] for case in BROKEN]


def certificate(folder, name, key, days):
    """A self-signed certificate that ends in so many days, which may be less than none."""
    config = folder / "ca.cnf"
    config.write_text(f"[ca]\ndefault_ca=d\n[d]\ndatabase={folder}/index\nserial={folder}/serial\nnew_certs_dir={folder}\n"
                      "default_md=sha256\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n")
    (folder / "index").write_text("")
    (folder / "serial").write_text("01\n")
    run = {"check": True, "stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    subprocess.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                    "/CN=x", "-keyout", folder / key, "-out", folder / "r.pem"], **run)
    ends = time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + days * 86400))
    subprocess.run(["openssl", "ca", "-batch", "-config", config, "-selfsign", "-keyfile", folder / key, "-in", folder / "r.pem",
                    "-out", folder / name, "-startdate", "20200101000000Z", "-enddate", ends, "-notext"], **run)
    (folder / key).chmod(0o600)


def prepare(i):
    """The files that the table above names."""
    (i.etc / "open").write_text("[host] user:password\n")
    (i.etc / "open").chmod(0o644)
    (i.etc / "bad").write_text("300.1.1.1/99 x\n")
    (i.etc / "dangling").symlink_to(i.etc / "nothing")
    (i.etc / "programs" / "qmgr").mkdir(parents=True, exist_ok=True)
    (i.etc / "corrupt.lmdb").write_bytes(b"not a table" * 1000)
    certificate(i.etc, "other-cert.pem", "other.pem", 90)
    certificate(i.etc, "c.pem", "k.pem", 90)
    certificate(i.etc, "old.pem", "k.pem", -1)
    certificate(i.etc, "c.pem", "openkey.pem", 90)
    (i.etc / "openkey.pem").chmod(0o644)
    if os.geteuid() == 0:  # of the admin, whom the suite trusts
        for path in i.etc.iterdir():
            os.chown(path, 0, 0, follow_symlinks=False)


def break_it(i, where, text, taken):
    """Writes the configuration with the text at the end; gives the number of its last line there."""
    for word, value in (("ETC", i.etc), ("PORT2", i.port["sink"]), ("PORT", i.port["smtp"]), ("TAKEN", taken)):
        text = text.replace(word, str(value))
    i.write()
    main, master = i.etc / "main.cf", i.etc / "master.cf"
    if where != "master":  # one value for each name: a second one is a warning of its own
        names = [line.split(" =")[0] for line in text.splitlines()]
        kept = [line for line in main.read_text().splitlines() if line.split(" =")[0] not in names]
        main.write_text("\n".join(kept + [text]) + "\n")
    if where == "both":
        master.write_text(master.read_text() + "metrics unix n - y - 1 metrics\n")
    path = master if where == "master" else main
    if where == "master":
        path.write_text(path.read_text() + text + "\n")
    return len(path.read_text().splitlines())


def found(text, pattern, line):
    return re.search(pattern.replace("LINE", str(line)), text)


@pytest.fixture
def taken():
    """A port that another server has."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        yield s.getsockname()[1]


@pytest.fixture
def idle(tmp_path):
    """An instance that is not started; its daemons' programs need only exist."""
    programs = tmp_path / "libexec"
    programs.mkdir()
    for name in ("master", "smtpd", "submission", "login", "metrics", *DAEMONS):
        (programs / name).symlink_to(BIN / "bulkhead")
    return Instance(tmp_path / "i", main={"daemon_directory": programs})


def test_check_names_each_with_file_line_and_remedy(idle, taken):
    assert len(BROKEN) >= 40 and len(set(NAMES)) == len(BROKEN)
    prepare(idle)
    wrong = []
    for name, where, text, pattern in BROKEN:
        line = break_it(idle, where, text, taken)
        done = idle.tool("check", check=False)
        if done.returncode != 78 or not found(done.stdout, pattern, line):
            wrong.append(f"{name} (line {line}): {done.returncode}\n{done.stdout}")
    assert not wrong, "\n".join(wrong)
    idle.write()
    done = idle.tool("check", check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_running_suite_refuses_each_and_goes_on(make_instance, taken):
    i = make_instance(main={"smtpd_banner": "$myhostname the old one", "inet_interfaces": "127.0.0.1"})
    prepare(i)
    wrong = []
    for number, (name, where, text, pattern) in enumerate(BROKEN):
        line = break_it(i, where, text, taken)
        with open(i.etc / "main.cf", "a", encoding="utf-8") as f:
            if "smtpd_banner" not in text:
                f.write("smtpd_banner = the new one\n")
        done = i.tool("reload", check=False)
        if done.returncode != 1 or not found(done.stdout, pattern, line) or \
                "reload refused: the running configuration goes on" not in done.stdout:
            wrong.append(f"{name} (line {line}): {done.returncode}\n{done.stdout}{done.stderr}")
        with smtplib.SMTP() as s:
            s.timeout = 20 * SLOW
            code, greeting = s.connect("127.0.0.1", i.port["smtp"])
            assert (code, greeting) == (220, b"mx.example.test the old one"), name
            s.sendmail("u1@example.test", ["u1@example.test"], f"Subject: {number}\r\n\r\n{name}\r\n")
    assert not wrong, "\n".join(wrong)
    texts = [m.decode().split() for m in i.messages("u1@example.test")]
    assert sorted(words[-1] for words in texts) == sorted(NAMES)
    assert "reloaded" not in i.log()
    i.set(smtpd_banner="$myhostname the new one")
    i.reload()
    with socket.create_connection(("127.0.0.1", i.port["smtp"]), 20 * SLOW) as s:
        assert s.makefile().readline() == "220 mx.example.test the new one\n"


def test_a_port_of_which_another_address_is_taken(make_instance):
    """Somebody else's server on another address of the machine is none of our business."""
    i = make_instance()
    with socket.create_server(("127.0.0.2", i.port["smtp"])):
        assert i.tool("check").stdout == ""
        i.reload()


def test_two_rows_for_one_port(make_instance):
    """Also where nobody has asked for a check: the second one gets no socket, and the log says why."""
    i = make_instance(start=False)
    i.extra_rows = [f"{i.port['smtp']} inet n - y - - submission"]
    i.write()
    i.start(wait=False)
    wait(lambda: re.search(r"listen-failed .*service=\d+ address=127.0.0.1 .*another row listens there",
                           (i.folder / "stderr").read_text() + i.log()), 20, "the line")
    wait(lambda: b"ESMTP" in first_line(i.port["smtp"]), 20, "the first one")
    i.allow_deaths = True


def first_line(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 20 * SLOW) as s:
            return s.makefile("rb").readline()
    except OSError:
        return b""


def test_master_itself_refuses_a_broken_text(make_instance):
    """Who asks without the tool's own look (-f, another admin) is refused by master, and the log says why to look."""
    i = make_instance()
    i.set(smtpd_timeout="soon")
    done = i.tool("reload", "-f", check=False)
    assert done.returncode == 1 and re.search(r"main.cf:\d+: smtpd_timeout = soon: 'soon' is not a time", done.stdout)
    assert "reload refused: the running configuration goes on" in done.stdout
    i.wait_log("error: reload-refused config=.* remedy=.run `bulkhead check`; the running configuration goes on")


def test_reload_in_spite_of_the_system(make_instance):
    """-f takes what is only wrong with the system, as an admin in a hurry needs it."""
    i = make_instance()
    i.set(admin_group="nosuchgroup", smtpd_banner="$myhostname the new one")
    done = i.tool("reload", check=False)
    assert done.returncode == 1 and "reload -f" in done.stderr
    assert i.tool("reload", "-f").returncode == 0
    with socket.create_connection(("127.0.0.1", i.port["smtp"]), 20 * SLOW) as s:
        assert s.makefile().readline() == "220 mx.example.test the new one\n"
    i.wait_log("error: admin-group group=nosuchgroup")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs other uids")
def test_check_finds_the_spool_of_a_former_uid_base(make_instance):
    i = make_instance(main={"direct_delivery": "no", "relayhost": "[127.0.0.1]:9", "myorigin": "example.test"})
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=20 * SLOW) as s:
        s.sendmail("a@example.test", ["x@elsewhere.test"], "Subject: x\r\n\r\nx\r\n")
    i.stop()
    assert i.tool("check").stdout == ""
    i.set(uid_base=i.uid_base + 100)
    done = i.tool("check", check=False)
    assert done.returncode == 78
    assert re.search(rf"main.cf:\d+: queue_directory: {i.spool}/queue/\S+ belongs to uid {i.uid_base + 9}, but qmgr has uid "
                     rf"{i.uid_base + 109}: correct uid_base, or stop the suite and chown -R {i.uid_base + 109}:"
                     rf"{i.uid_base + 109} {i.spool}/queue", done.stdout), done.stdout


def test_reload_takes_what_is_read_at_the_start(make_instance):
    """Threads of auth, rounds of new verifiers, and who may submit: by a successor, without a restart of the suite."""
    i = make_instance(main={"auth_worker_count": "1"})
    before = {name: i.pids(name) for name in ("auth", "pickup", "qmgr")}

    def renewed(name):
        end = time.monotonic() + 30 * SLOW
        while i.pids(name) == before[name] or not i.pids(name):
            assert time.monotonic() < end, i.tail()
            time.sleep(0.03)

    def threads():
        return len(os.listdir(f"/proc/{i.pids('auth')[0]}/task"))

    had = threads()
    i.set(auth_worker_count="3", auth_scram_rounds="20000", authorized_submit_users="!nobody, static:anyone")
    i.reload()
    renewed("auth")
    renewed("pickup")
    i.wait_ready()
    assert threads() == had + 2
    i.add_user("new@example.test", "geheim")
    assert b"$20000:" in (i.data / "users.lmdb").read_bytes()
    assert i.pids("qmgr") == before["qmgr"]
