"""The daemons around qmgr as the tests of faults drive them: an instance, the traffic that goes through the daemon, and its
process.

    a = agents.smtp_client(relaying)
    a.act()            # a burst of messages through it
    a.act(whole=True)  # and until they have arrived
    a.pid()            # of its process, or of the child that has the sessions
"""
import base64
import re
import smtplib
import subprocess

import faults
from faults import Traffic, child_of
from instance import BIN, SLOW
from scram import client_context

# A successor comes at once, what is put off waits for a flush.
QUICK = {"service_throttle_time": "100ms", "minimal_backoff_time": "1h", "maximal_backoff_time": "1h"}
OFTEN = {"default_destination_concurrency_failed_cohort_limit": "1000"}  # a site does not rest because its agent dies
LOCAL = {"small": ("u1@example.test", 100), "large": ("u1@example.test", 40000)}


class ByCommand(Traffic):
    """Messages by sendmail(1); a status of 0 counts as the acknowledgement."""

    trace, inject, etc, program, environment = None, None, None, BIN / "sendmail", None

    def hand_in(self, to, text):
        words = [self.program, "-C", self.etc or self.i.etc, "-i", "-f", "me@example.test", to]
        if self.trace:
            words = ["strace", "-f", "-qq", "-o", self.trace, *(["-e", f"inject={self.inject}"] if self.inject else []), *words]
        try:
            done = subprocess.run(words, input=text.replace("\r\n", "\n").encode(), capture_output=True, timeout=60 * SLOW, check=False,
                                  env=self.environment)
        except subprocess.TimeoutExpired as e:  # as a connection that says nothing
            raise TimeoutError(str(e)) from None
        return (250 if done.returncode == 0 else done.returncode), done.stderr


class ByLogin(Traffic):
    """Messages by submission with TLS and a login."""

    def hand_in(self, to, text):
        with smtplib.SMTP("127.0.0.1", self.i.port["submission"], timeout=self.patience * SLOW) as s:
            s.starttls(context=client_context(self.i.data / "self-made.pem"))
            s.ehlo("client.test")
            secret = base64.b64encode(b"\0u1@example.test\0pass1").decode()
            for answer in (lambda: s.docmd("AUTH", f"PLAIN {secret}"), lambda: s.mail("u1@example.test"), lambda: s.rcpt(to),
                           lambda: s.data(text)):
                code, said = answer()
                if code >= 400:
                    break
            return code, said


class Agent:
    def __init__(self, i, traffic, pid, arrived=None):
        self.i, self.traffic, self.pid, self.arrived = i, traffic, pid, arrived

    def act(self, whole=False):
        self.traffic.burst()
        if whole and self.arrived:
            faults.wait(self.arrived, 30, "what was sent")

    def flushed(self):
        """Whether all has arrived; what was put off is tried again."""
        self.i.tool("queue", "flush", check=False)
        return self.arrived()


def smtp_client(relaying, **main):
    i, traffic = relaying(**OFTEN, **main)
    traffic.kinds = {f"{k}{n}": v for k, v in traffic.kinds.items() if k.startswith("out") for n in "12"}

    def arrived():
        return {k for k, to in traffic.acked.items() if to != "later@out.test" and to.endswith("out.test")} <= set(traffic.far())

    return Agent(i, traffic, lambda: i.pids("smtp-client")[0], arrived)


def bounce(relaying, **main):
    """Each message comes back to u1@example.test as a notice, which has its queue ID and its content."""
    i, traffic = relaying(**OFTEN, **main)
    traffic.sink.answers["bad@out.test"] = "550 5.1.1 nobody"
    traffic.kinds = {f"bad{n}": ("bad@out.test", 40000 if n % 2 else 100) for n in range(6)}
    traffic.sender, traffic.options = "u1@example.test", ["RET=FULL"]

    def arrived():
        due = {re.search(r"as (\w+)", traffic.replies[k])[1] for k, to in traffic.acked.items() if to == "bad@out.test"}
        told = b"".join(m for m in i.messages("u1@example.test") if b"multipart/report" in m)
        return all(name.encode() in told for name in due)

    return Agent(i, traffic, lambda: i.pids("bounce")[0], arrived)


def smtpd(relaying, **main):
    i, traffic = relaying(**main)
    traffic.kinds = dict(LOCAL)
    return Agent(i, traffic, lambda: child_of(i, "smtpd", f":{i.port['smtp']}"))


def submission(make_instance, kind=ByCommand, **main):
    """By sendmail(1), or by TLS and a login."""
    i = make_instance(direct=False, allow_deaths=True, main={**QUICK, "submission_sessions_per_process": "100", **main})
    traffic = kind(i, None, LOCAL)
    traffic.burst()
    service = "--service submit" if kind is ByCommand else f":{i.port['submission']}"
    return Agent(i, traffic, lambda: child_of(i, "submission", service))


def while_down(i, folder):
    """A configuration of an instance that is down, with the same maildrop/: sendmail(1) leaves its messages there."""
    folder.mkdir()
    (folder / "main.cf").write_text((i.etc / "main.cf").read_text() + f"run_directory = {folder}/nowhere\n")
    (folder / "master.cf").write_text((i.etc / "master.cf").read_text())
    return folder


def pickup(make_instance, tmp_path, **main):
    i = make_instance(direct=False, allow_deaths=True, main={**QUICK, **main})
    traffic = ByCommand(i, None, LOCAL)
    traffic.etc = while_down(i, tmp_path / "etc")
    return Agent(i, traffic, lambda: i.pids("pickup")[0], lambda: set(traffic.acked) <= set(traffic.near()))


def maildrop_is_empty(i, seconds=90, also=""):
    """also: first letters of the names that may be there, beside the dot."""
    faults.wait(lambda: not [p for p in (i.spool / "maildrop").iterdir() if p.name[:1] not in "." + also], seconds, "an empty maildrop")
