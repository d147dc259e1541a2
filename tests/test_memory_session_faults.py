"""Memory is refused to the daemons of logins and sessions, to pickup and to dns: the n-th allocation fails. Who is served hears
a temporary answer or loses the connection, never a wrong one; a line of the log tells of it; what was acknowledged is there, and
the next session works."""
import base64
import imaplib
import os
import poplib
import re
import smtplib

import pytest

import agents
import faults
from agents import ByCommand, ByLogin
from faults import Traffic, sample
from instance import SLOW
from nameserver import HAVE, Nameserver
from preload import Allocator
from scram import Scram, client_context
from sink import NextHop
from test_imap_faults import Model
from test_pop3 import deliver, message, pop
from test_submission_auth import auth

pytestmark = [*faults.NEEDS, pytest.mark.skipif(SLOW != 1, reason="a sanitizer has an allocator of its own"),
              pytest.mark.skipif(not HAVE, reason="needs nsd")]
ROLES = ("imapd", "pop3d", "submission", "auth", "pickup", "dns")
USER, POP_USER, RECIPIENT = "u1@example.test", "u2@example.test", "u3@example.test"
TEMPORARY = {451, 452, 454, 421}
WORDS = r" (?:error|warning): | status=deferred | tls-failed .*reason=\"(?!peer)"
ZONE = "@ MX 10 mx\n* MX 10 mx\nmx A 127.0.0.1\n"


class Imap:
    """A login, each command that changes something, and what they left."""

    def __init__(self, i):
        self.i, self.model = i, Model(i)

    def act(self):
        before = self.model.codes.copy()
        try:
            m = imaplib.IMAP4_SSL("localhost", self.i.port["imaps"], ssl_context=self.i.tls(), timeout=30)
            m.login(USER, "pass1")
            m.select("INBOX")
            m.create("Archive")
        except (imaplib.IMAP4.error, OSError) as e:
            assert "AUTHENTICATIONFAILED" not in str(e), e
            return False
        whole = self.model.try_round(m)
        new = self.model.codes - before
        assert not new["BAD"], new
        m.shutdown()
        return whole and not new.keys() - {"OK"}

    def check(self):
        self.model.check()


class Pop:
    """One message more, all of them read, the last one removed."""

    def __init__(self, i):
        self.i, self.n, self.there, self.gone = i, 0, set(), set()

    def act(self):
        self.n += 1
        deliver(self.i, message(f"pop-{self.n}"), user=POP_USER, password="pass2")
        self.there.add(f"pop-{self.n}")
        try:
            p = pop(self.i, POP_USER, "pass2")
            for k in range(1, p.stat()[0] + 1):
                text = b"\r\n".join(p.retr(k)[1]) + b"\r\n"
                subject = re.search(rb"Subject: (\S+)", text)[1].decode()
                assert text == message(subject), f"{subject} is not whole"
            p.dele(k)
            self.there.discard(subject)  # it may go from here on
            p.quit()
            self.gone.add(subject)
        except (poplib.error_proto, OSError) as e:
            assert "[AUTH]" not in str(e), e
            return False
        return True

    def check(self):
        found = {re.search(rb"Subject: (\S+)", m)[1].decode() for m in self.i.messages(POP_USER)}
        assert self.there <= found, f"lost: {self.there - found}"
        assert not self.gone & found, f"removed, and there: {self.gone & found}"


class Mail:
    """Messages that are handed in, by one or several ways, to a mailbox of their own or to the sink."""

    def __init__(self, *traffic, allowed):
        self.traffic, self.allowed = traffic, allowed
        for t in traffic:
            t.box = RECIPIENT
            t.sent, t.acked, t.replies, t.codes = traffic[0].sent, traffic[0].acked, traffic[0].replies, traffic[0].codes

    def act(self):
        return all([t.one("small") == 250 for t in self.traffic])

    def check(self):
        first = self.traffic[0]
        first.settle()
        faults.wait(lambda: set(first.acked) <= set(first.near() + first.far()), 60, "all of it")
        assert not first.codes.keys() - self.allowed, first.codes
        first.check(retries=True)


class Left(Mail):
    """What sendmail(1) left in maildrop/."""

    def act(self):
        first = self.traffic[0]
        before = set(first.acked)
        assert first.one("small") == 250
        try:
            faults.wait(lambda: set(first.acked) - before <= set(first.near()), 3, "it")
        except AssertionError:
            return False  # another file has the folder looked at again
        return True


class Named(Mail):
    """To a domain that was not asked for before."""

    n = 0

    def act(self):
        first = self.traffic[0]
        self.n += 1
        first.kinds["small"], before = (f"r@n{self.n}.out.test", 100), set(first.acked)
        if first.one("small") != 250:
            return False
        put_off, log = rf" to=<r@n{self.n}\.out\.test>.* status=deferred", first.i.log
        faults.wait(lambda: set(first.acked) - before <= set(first.far()) or re.search(put_off, log()), 30, "the delivery or its delay")
        good = not re.search(put_off, log())
        if not good:
            first.i.tool("queue", "flush", check=False)
        return good


def scram(s, x):
    def last(final):
        x.check(final)
        return b""

    code, text = auth(s, "SCRAM-SHA-256", x.final, last, initial=x.first())
    assert x.checked or code != 235, "a login that the server has not proved"
    return code, text


class Logins:
    """The right password and a wrong one, by mechanisms that libsasl2 does and by the one that is ours."""

    def __init__(self, i):
        self.i = i

    def login(self, call):
        """The code of the answer, 0 when there was none."""
        try:
            with smtplib.SMTP("127.0.0.1", self.i.port["submission"], timeout=30) as s:
                s.starttls(context=client_context(self.i.data / "self-made.pem"))
                s.ehlo()
                return call(s)[0]
        except (OSError, smtplib.SMTPException):
            return 0

    def act(self):
        good = True
        for password in ("pass1", "wrong"):
            secret = base64.b64encode(f"\0{USER}\0{password}".encode()).decode()
            for what, call in (("PLAIN", lambda s: s.docmd("AUTH", f"PLAIN {secret}")),
                               ("SCRAM", lambda s: scram(s, Scram(USER, password)))):
                code, due = self.login(call), 235 if password == "pass1" else 535
                assert code in {due, 0, *TEMPORARY}, f"{what} with {password}: {code}"
                good = good and code == due
        return good

    def check(self):
        assert faults.wait(self.act, 30, "logins")


@pytest.fixture
def served(make_instance, tmp_path):
    allocator = Allocator(tmp_path)
    i = make_instance(start=False, direct=False, allow_deaths=True, users={USER: "pass1", POP_USER: "pass2", RECIPIENT: "pass3"})
    i.set(**agents.QUICK, daemon_directory=allocator.programs(*ROLES), auth_failure_delay="0", smtp_tls_security_level="none",
          smtp_tcp_port=i.port["sink"], smtpd_client_connection_count_limit="0", submission_sessions_per_process="100")
    sink = NextHop(i.port["sink"])
    with Nameserver(tmp_path / "ns", i.port["dns"], {"out.test": ZONE}):
        i.start()
        down = ByCommand(i, None, {"small": (RECIPIENT, 100)})
        down.etc = agents.while_down(i, tmp_path / "down")
        by = [kind(i, None, {"small": (RECIPIENT, 100)}) for kind in (ByCommand, ByLogin)]
        far = Traffic(i, sink, {})
        down.sent = far.sent = by[0].sent  # they have one mailbox
        yield i, allocator, {"imapd": Imap(i), "pop3d": Pop(i), "submission": Mail(*by, allowed={250, 0, os.EX_TEMPFAIL, *TEMPORARY}),
                             "auth": Logins(i), "pickup": Left(down, allowed={250}), "dns": Named(far, allowed={250})}
    sink.close()


def points(n):
    """Each allocation; of a key derivation, which makes thousands that are alike, only some."""
    return [k for k in range(1, n + 1) if k <= 500 or k > n - 100 or k % (n // 100) == 0]


def refuse(i, allocator, role, user, n):
    """The n-th allocation from here on fails; the next session works."""
    log, bad = len(i.log()), []

    def until():
        if not user.act():
            bad.append(1)
        return not allocator.left(role)

    allocator.arm(role, n)
    faults.wait(until, 40, f"allocation {n} of {role}")
    if bad:
        faults.wait(lambda: re.search(WORDS, i.log()[log:]), 10, f"a line about allocation {n} of {role}")
    faults.wait(user.act, 30, f"the session after allocation {n} of {role}")
    return len(bad)


def test_the_nth_allocation_fails(served):
    i, allocator, users = served
    each, refused, wrong = {}, {}, []
    for role, user in users.items():
        counts = []
        for _ in range(4):  # what comes each time; the first one finds nothing prepared
            faults.wait(user.act, 30, f"a session of {role}")
            counts.append(allocator.count(role))
        each[role] = min(b - a for a, b in zip(counts, counts[1:]))
        assert each[role] > 3, each
        for n in sample(points(each[role]), 2):
            try:
                refused[role] = refused.get(role, 0) + bool(refuse(i, allocator, role, user, n))
            except AssertionError as e:
                wrong.append(f"{role} {n}: {e}\n{i.tail(15)}")
                allocator.arm(role, 0)
    i.wait_ready(60)
    for role, user in users.items():
        try:
            user.check()
        except AssertionError as e:
            wrong.append(f"{role}: {e}")
    assert not wrong, "\n----\n".join(wrong)
    print(f"allocations={each} noticed by a client: {refused}")
