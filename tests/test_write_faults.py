"""Writes that take fewer bytes than they were given (tests/short_writes.c, RLIMIT_FSIZE). One that can be continued is; where the
rest is refused, so is the message, for now or as a full mailbox: nothing half is left as delivered, nothing acknowledged is lost."""
import errno
import mailbox
import os
import re
import subprocess

import pytest

import agents
import faults
from agents import ByCommand
from faults import Traffic, child_of, sample
from instance import BIN, SLOW, Instance
from load import body_of, digest
from preload import Shortener
from sink import NextHop
from test_queue import relay_to

pytestmark = [*faults.NEEDS, pytest.mark.skipif(SLOW != 1, reason="the library comes before that of a sanitizer"),
              pytest.mark.xdist_group("write faults")]  # of one instance
# What each is to have cut, so that none of its ways is left out.
CUTS = {"qmgr": {"pwrite", "pwritev", "copy_file_range"}, "smtpd": {"write"}, "submission": {"write"}, "local": {"write"},
        "smtp-client": {"write"}, "bounce": {"write"}, "pickup": {"write"}, "log": {"write"}, "sendmail": {"write"}}
WRITES = {"write", "pwrite", "writev", "pwritev", "pwritev2", "sendfile", "splice", "vmsplice", "copy_file_range", "fwrite"}
WAKING = {"qmgr"}  # who writes to an eventfd only, which takes eight bytes or none
TEXT = {errno.ENOSPC: "No space left on device", errno.EIO: "Input/output error", errno.EDQUOT: "Disk quota exceeded"}
SENDER = "u3@example.test"  # who gets the notices


class Everywhere(Traffic):
    """Messages to each kind of destination that local has, and to the next hop."""

    def __init__(self, i, sink, out):
        kinds = {"maildir": "u1@example.test", "mbox": "u2@example.test", "file": "file@mx.example.test", "program": "program@mx.example.test",
                 "list": "list@mx.example.test", "out": "a@out.test"}
        super().__init__(i, sink, {f"{k}{n}": (to, n) for k, to in kinds.items() for n in (100, 6000, 100000)}, sender=SENDER)
        self.files = [i.mail / "boxes/u2", out / "file", out / "program"]
        self.tmp = i.home("u1@example.test") / "Maildir/tmp"

    def near(self):
        found = super().near()
        for path in self.files:
            if path.exists():
                box = mailbox.mbox(path, create=False)
                found.update(digest(body_of(box.get_bytes(key))) for key in box.keys())
        return found

    def state(self):
        return [p.stat().st_size if p.exists() else 0 for p in self.files], sorted(self.tmp.iterdir()), sum(self.near().values())


class Site:
    """An instance whose writers start with the library, and what goes through it."""

    def __init__(self, folder):
        self.library, self.out = Shortener(folder), folder / "out"
        self.out.mkdir()
        self.out.chmod(0o777)
        program = folder / "take"
        program.write_text(f"#!/bin/sh\nexec cat >>{self.out}/program\n")
        program.chmod(0o755)
        self.i = i = Instance(folder / "i", direct=False, allow_deaths=True, users={"u1@example.test": "pass1", SENDER: "pass3"},
                              aliases=f'file: {self.out}/file\nprogram: "|{program}"\nlist: u1@example.test\nowner-list: {SENDER}\n')
        i.set(**{**relay_to(i), **agents.QUICK, "daemon_directory": self.library.programs(*(set(CUTS) - {"sendmail"})),
                 "local_child_idle_time": "5m", "smtpd_client_connection_count_limit": "0", "submission_sessions_per_process": "100"})
        (i.mail / "boxes").mkdir()
        (i.mail / "boxes").chmod(0o777)
        i.data.mkdir()
        for name, password in list(i.users.items()):
            i.add_user(name, password)
        i.add_user("u2@example.test", "pass2", f"mailbox=mbox:{i.mail}/boxes/u2")
        self.sink = NextHop(i.port["sink"])
        self.sink.answers["bad@out.test"] = "550 5.1.1 nobody"

    def prepare(self):
        self.traffic = Everywhere(self.i, self.sink, self.out)
        self.traffic.burst()
        self.traffic.settle()
        self.up, self.down = self.by_command(None), self.by_command(agents.while_down(self.i, self.i.folder / "down"))

    def by_command(self, etc):
        """Messages by sendmail(1), to the same mailbox."""
        t = ByCommand(self.i, None, {"small": ("u1@example.test", 100), "large": ("u1@example.test", 100000)})
        t.sent, t.acked, t.replies = self.traffic.sent, self.traffic.acked, self.traffic.replies
        t.etc, t.environment = etc, {**os.environ, **self.library.environment("sendmail")}
        return t

    def notices(self):
        return [m for m in self.i.messages(SENDER) if b"multipart/report" in m]

    def come_back(self):
        """A message that cannot be delivered: its notice is too large for memory."""
        t = Traffic(self.i, None, {"bad": ("bad@out.test", 40000)}, sender=SENDER)
        t.options = ["RET=FULL"]
        assert t.one("bad") == 250

    def forget(self, names):
        """What came back to its sender is no more to be delivered."""
        for key in [k for k, said in self.traffic.replies.items() if names & set(re.findall(r"\w+", said))]:
            self.traffic.acked.pop(key, None)

    def refused(self, role, error, call, pattern=None):
        """What call gives while a write of role to a file is short and the next one refused; the log says so."""
        log = len(self.i.log())
        self.library.arm(error, role, least=4000)
        try:
            result = call()
            if pattern:
                try:
                    faults.wait(lambda: re.search(pattern, self.i.log()[log:]), 20, f"a line of {role}: {pattern}")
                except AssertionError:
                    raise AssertionError(f"{result}, no line of {role}, {pattern}:\n{self.i.log()[log:]}") from None
        finally:
            self.library.arm(0, role)
        return result


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("short"))
    with site.i:
        site.prepare()
        yield site
    site.sink.close()


@pytest.fixture
def short(site):
    site.library.arm(0)
    site.sink.usual = None
    site.traffic.settle()
    return site


def test_nothing_writes_otherwise():
    """Each function that writes is one of short_writes.c, but for send() to sockets and stdio of what people read."""
    for role in CUTS:
        names = subprocess.run(["nm", "-D", "--undefined-only", BIN / role], stdout=subprocess.PIPE, text=True, check=True).stdout
        used = {name for name in re.findall(r" U (\w+?)(?:64)?@", names)} & WRITES
        assert used - {"fwrite"} == CUTS[role] | ({"write"} if role in WAKING else set()), (role, used)
        assert "fwrite" not in used or role == "sendmail"


def test_each_write_is_continued(short):
    i, library, traffic, site = short.i, short.library, short.traffic, short
    died, told = i.log().count("-died "), len(site.notices())
    library.arm(library.HALF)
    try:
        i.set(direct_delivery="yes")
        i.reload()
        for t in (traffic, site.up, site.down):
            t.burst()
    finally:
        i.set(direct_delivery="no")
        i.reload()
    traffic.burst()
    site.come_back()
    faults.wait(lambda: len(site.notices()) == told + 1, 30, "the notice")
    notice = max(site.notices(), key=len)
    assert re.search(rb'boundary="?([^";\s]+)', notice)[1] in notice.rstrip().rpartition(b"\n")[2], "the notice is not whole"
    agents.maildrop_is_empty(i, 30)
    site.sink.usual = "450 4.2.0 not now"
    traffic.burst("out100", "out6000", "out100000")
    i.wait_log("to=<a@out.test>.* status=deferred", count=3)
    assert i.log().count("-died ") == died, re.findall(".*-died .*|.*process-failed.*", i.log())
    i.kill_program("qmgr")  # the next one writes down again what it finds
    i.wait_ready(30)
    traffic.until_taken("maildir100")
    site.sink.usual = None
    traffic.settle()
    assert traffic.codes.keys() == site.up.codes.keys() == site.down.codes.keys() == {250}
    again = traffic.check()
    for line in i.log().splitlines():
        assert re.match(r"\S+T\S+Z \S+ bulkhead/[\w-]+\[\d+\]: [\w-]+[ :]", line), f"a torn line: {line}"
    cuts = {role: library.cut(role) for role in CUTS}
    print(f"short={cuts}, acknowledged={len(traffic.acked)}, second copies: {again}")
    assert {role: set(c) for role, c in cuts.items()} == CUTS


# What local says of it; of a program's input it is memory that is short.
FULL = [(kind, error, status, code) for error, status, code in (
    (errno.ENOSPC, "deferred", "4.3.1"), (errno.EIO, "deferred", "4.3.0"), (errno.EDQUOT, "bounced", "5.2.2"))
    for kind in ("maildir", "mbox", "file", "program")]


def test_a_delivery_whose_rest_is_refused(short):
    """Each destination is as it was before, and gets the message later."""
    i, traffic = short.i, short.traffic
    for kind, error, status, code in sample(FULL, 6):
        if kind == "program":
            status, code = "deferred", "4.3.0"
        before = traffic.state()

        def delivery():
            assert traffic.one(f"{kind}100000") == 250
            [name] = re.findall(r"as (\w+)", traffic.last)
            return name, i.wait_log(rf" delivery qid={name} .*status=", 20)[0]

        name, line = short.refused("local", error, delivery)
        assert f"status={status} dsn={code} " in line and (status == "bounced" or TEXT[error] in line), (kind, error, line)
        assert traffic.state() == before, (kind, error)
        if status == "bounced":
            short.forget({name})
        traffic.settle()
    assert not list(traffic.tmp.iterdir())
    traffic.check()


def test_a_message_whose_rest_is_refused(short):
    """On its way in, and as a notice: the right 4xx, the file in maildrop/ stays, the notice is tried again."""
    i, traffic, down = short.i, short.traffic, short.down
    maildrop = i.spool / "maildrop"
    for error, code in sample([(errno.ENOSPC, 452), (errno.EIO, 451), (errno.EDQUOT, 452)], 1):
        line = rf" queue-write .*{TEXT[error]}.*remedy="
        assert short.refused("smtpd", error, lambda: traffic.one("maildir100000"), line) == code
        assert short.refused("submission", error, lambda: short.up.one("large"), line) in (os.EX_TEMPFAIL, 250)
        assert short.refused("pickup", error, lambda: down.one("large"), rf"{line}[\s\S]*maildrop-postponed") == 250
        assert [p for p in maildrop.iterdir() if p.name[:1] != "."], "pickup has removed what it could not hand in"
        left = set(maildrop.iterdir())
        assert short.refused("sendmail", error, lambda: down.one("large")) == os.EX_TEMPFAIL
        assert TEXT[error] in down.last and set(maildrop.iterdir()) == left
        told = len(short.notices())
        short.refused("bounce", error, short.come_back, rf" notice-failed .*cannot be written: {TEXT[error]}")
        i.tool("queue", "flush")
        faults.wait(lambda: len(short.notices()) == told + 1, 30, "the notice")
        assert down.one("small") == 250  # a new file, so that the folder is looked at again
        agents.maildrop_is_empty(i)
    line = rf" queue-commit .*{TEXT[errno.ENOSPC]}"
    assert short.refused("qmgr", errno.ENOSPC, lambda: traffic.one("out6000"), line) == 452 and traffic.last.startswith("4.3.1 ")
    traffic.until_taken("maildir100")
    traffic.settle()
    traffic.check()


def test_the_limit_of_a_file_is_reached(short):
    """RLIMIT_FSIZE: the kernel itself writes less, and then nothing more; the process lives."""
    i, traffic, down = short.i, short.traffic, short.down
    traffic.until_taken("maildir100")
    traffic.settle()
    owner, [pickup] = i.home("u1@example.test").stat().st_uid, i.pids("pickup")
    [local] = [pid for pid in i.pids("local") if os.stat(f"/proc/{pid}").st_uid == owner]
    rows = [(local, lambda: traffic.one("maildir100000"), 250, r" delivery .*status=bounced dsn=5\.2\.2"),
            (child_of(i, "smtpd", f":{i.port['smtp']}"), lambda: traffic.one("maildir100000"), 451, r" queue-write .*File too large.*remedy="),
            (pickup, lambda: down.one("large"), 250, r" queue-write .*File too large.*remedy=[\s\S]*maildrop-postponed")]
    before = traffic.state()
    for pid, call, code, pattern in rows:
        log = len(i.log())
        with faults.small_files(pid):
            assert call() == code
            faults.wait(lambda: re.search(pattern, i.log()[log:]), 20, pattern)
        assert os.path.exists(f"/proc/{pid}"), pattern
    assert traffic.state() == before
    short.forget(set(re.findall(r" delivery .*qid=(\w+) .*status=bounced", i.log())))
    assert down.one("small") == 250
    agents.maildrop_is_empty(i)
    traffic.settle()
    traffic.check()
