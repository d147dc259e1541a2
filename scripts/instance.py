#!/usr/bin/env python3
"""instance.py run|stop DIR: the self-contained instance behind `./bootstrap run` and `./bootstrap stop`.

run makes DIR (configuration, spool, mail, certificate, two users, high ports on loopback) where it is not there yet,
starts it, submits a first message with curl over STARTTLS with a password, reads it back over IMAPS and POP3S, and
prints what happened and the settings for a mail client.
"""
import json
import os
import pathlib
import secrets
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(os.environ.get("BIN", ROOT / "build/rel/bin"))
FIRST_PORT = 2525
PORTS = ("smtp", "submission", "submissions", "imap", "imaps", "pop3", "pop3s")
DAEMONS = ("qmgr", "pickup", "smtp-client", "local", "bounce", "maps", "nss", "dns", "auth", "broker", "imapd", "pop3d", "log")
USERS = ("alice@example.test", "bob@example.test")


def say(text):
    print(f"== {text}", flush=True)


def fail(text):
    sys.exit(f"bootstrap: {text}")


def free(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose_ports():
    for base in range(FIRST_PORT, FIRST_PORT + 3000, 20):
        if all(free(base + k) for k in range(len(PORTS))):
            return {name: base + k for k, name in enumerate(PORTS)}
    fail("no seven free ports in a row between 2525 and 5525")


def rows(port):
    implicit = "\n    -o smtpd_tls_wrappermode=yes"
    lines = [f"127.0.0.1:{port['smtp']} inet n - y - - smtpd",
             f"127.0.0.1:{port['submission']} inet n - y - - submission",
             f"127.0.0.1:{port['submissions']} inet n - y - - submission{implicit}"]
    for name in ("imap", "pop3"):
        lines.append(f"127.0.0.1:{port[name]} inet n - y - - login -o service_protocol={name}")
        lines.append(f"127.0.0.1:{port[name + 's']} inet n - y - - login -o service_protocol={name}{implicit}")
    lines.append("submit unix n - y - - submission")
    return lines + [f"{d} unix n - y - 1 {d}" for d in DAEMONS]


def make(folder):
    say(f"making an instance in {folder}")
    for d in ("etc", "mail", "log", "data"):
        (folder / d).mkdir(parents=True, exist_ok=True)
    port = choose_ports()
    values = {"myhostname": "mx.example.test", "mydestination": "$myhostname, localhost", "inet_interfaces": "127.0.0.1",
              "inet_protocols": "ipv4", "virtual_mailbox_domains": "example.test", "daemon_directory": BIN,
              "queue_directory": folder / "spool", "data_directory": folder / "data", "run_directory": folder / "run",
              "virtual_mailbox_base": folder / "mail", "alias_maps": f"hash:{folder}/etc/aliases", "log_target": "file",
              "log_file": folder / "log/mail.log"}
    if os.geteuid() == 0:
        values["uid_base"] = 700000
    (folder / "etc/main.cf").write_text("".join(f"{k} = {v}\n" for k, v in values.items()))
    (folder / "etc/master.cf").write_text("\n".join(rows(port)) + "\n")
    (folder / "etc/aliases").write_text("postmaster: root\nroot: alice@example.test\n")
    passwords = {user: secrets.token_urlsafe(9) for user in USERS}
    for user, password in passwords.items():
        tool(folder, "user", "add", user, input=password + "\n")
    state = {"ports": port, "users": passwords}
    path = folder / "instance.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(state, indent=1) + "\n")
    return state


def tool(folder, *words, input=None, check=True):
    done = subprocess.run([BIN / "bulkhead", "-c", folder / "etc", *words], input=input, text=True, capture_output=True, check=False)
    if check and done.returncode:
        fail(f"bulkhead {' '.join(words)} failed ({done.returncode}):\n{done.stdout}{done.stderr}")
    return done


def reachable(folder):
    """The daemons have uids of their own, so every folder above must let others through. Below /root, say, none does: then
    the instance lies in /var/lib, and the folder is a link to it."""
    if os.geteuid() != 0 or all(d.stat().st_mode & 0o001 for d in folder.parents):
        return folder
    if folder.exists():
        fail(f"the folders above {folder} do not let other users through, and the daemons have their own uids: remove it and "
             "run this again, or give another folder")
    real = pathlib.Path("/var/lib/bulkhead-instance")
    while real.exists():
        real = real.with_name(real.name + "x")
    say(f"{folder} is a link to {real}: the folders above it let no other users through, and the daemons have their own uids")
    real.mkdir(mode=0o755)
    folder.symlink_to(real)
    return real


def curl(folder, *words):
    cert = folder / "data/self-made.pem"
    done = subprocess.run(["curl", "-sS", "--max-time", "30", "--cacert", cert, *words], capture_output=True, check=False)
    if done.returncode:
        log = (folder / "log/mail.log").read_text(errors="replace")[-3000:]
        fail(f"curl {' '.join(map(str, words))}: {done.stderr.decode(errors='replace')}\nThe end of the log:\n{log}")
    return done.stdout


def first_message(folder, state):
    (alice, pa), (bob, pb) = state["users"].items()
    port, mark = state["ports"], secrets.token_hex(8)
    message = folder / "first-message.eml"
    message.write_text(f"From: Alice <{alice}>\r\nTo: Bob <{bob}>\r\nSubject: A first message\r\nX-Mark: {mark}\r\n\r\nIt works.\r\n")
    say(f"submitting a message: {alice} to {bob}, curl, STARTTLS and AUTH on port {port['submission']}")
    curl(folder, "--ssl-reqd", "--url", f"smtp://localhost:{port['submission']}", "-u", f"{alice}:{pa}", "--mail-from", alice,
         "--mail-rcpt", bob, "-T", message)
    say(f"reading it: IMAPS on port {port['imaps']}")
    found = find_by_imap(folder, port["imaps"], bob, pb, mark)
    say(f"reading it: POP3S on port {port['pop3s']}")
    listing = curl(folder, f"pop3s://localhost:{port['pop3s']}/", "-u", f"{bob}:{pb}").decode().split("\n")
    numbers = [line.split()[0] for line in listing if line.strip()]
    if not numbers or mark.encode() not in curl(folder, f"pop3s://localhost:{port['pop3s']}/{numbers[-1]}", "-u", f"{bob}:{pb}"):
        fail("the message is not there over POP3S")
    return found


def find_by_imap(folder, port, user, password, mark):
    for _ in range(50):
        # HEADER search asks the server; the answer holds the number of the message
        answer = curl(folder, f"imaps://localhost:{port}/INBOX?HEADER%20X-Mark%20{mark}", "-u", f"{user}:{password}").decode()
        numbers = [w for w in answer.replace("* SEARCH", "").split() if w.isdigit()]
        if numbers:
            return curl(folder, f"imaps://localhost:{port}/INBOX;MAILINDEX={numbers[0]}", "-u", f"{user}:{password}")
        time.sleep(0.1)
    fail("the message did not arrive in 5 seconds: see the log")


def report(folder, state, text):
    port = state["ports"]
    print("\n---- the message as Bob reads it\n" + text.decode(errors="replace").rstrip() + "\n----\n")
    print("Settings for a mail client (server: localhost; the certificate is self-made, so accept it):")
    for user, password in state["users"].items():
        print(f"  user {user}   password {password}")
    print(f"  IMAP  port {port['imap']} (STARTTLS) or {port['imaps']} (TLS)      POP3 port {port['pop3']} or {port['pop3s']}")
    print(f"  SMTP  port {port['submission']} (STARTTLS) or {port['submissions']} (TLS), with the password; from outside: {port['smtp']}")
    print(f"\nLook around:\n  {BIN}/bulkhead -c {folder}/etc status\n  {BIN}/bulkhead -c {folder}/etc security")
    print(f"  tail {folder}/log/mail.log\nStop it: ./bootstrap stop {folder}")


def run(folder):
    folder = reachable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state_file = folder / "instance.json"
    state = json.loads(state_file.read_text()) if state_file.exists() else make(folder)
    if tool(folder, "status", check=False).returncode:
        say("starting")
        tool(folder, "start")
    report(folder, state, first_message(folder, state))


def stop(folder):
    if not (folder / "instance.json").exists():
        fail(f"no instance in {folder}")
    print(tool(folder, "stop").stdout, end="")


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in ("run", "stop"):
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[2]).resolve()
    (run if sys.argv[1] == "run" else stop)(folder)


main()
