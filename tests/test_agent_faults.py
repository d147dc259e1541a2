"""The daemons around qmgr killed at each system call of their way: nothing that was acknowledged is lost or half."""
import collections
import re
import subprocess

import pytest

import faults
from faults import Traffic, child_of, kill_at, record, sample
from instance import BIN, SLOW
from test_commit_faults import finish, relaying  # noqa: F401 (a fixture)

pytestmark = faults.NEEDS
OFTEN = {"default_destination_concurrency_failed_cohort_limit": "1000"}  # a site does not rest because its agent dies


def told(i, points, traffic, again, record_property):
    record_property("points", len(points))
    record_property("second copies", again)
    print(f"points={len(points)} acknowledged={len(traffic.acked)} of {len(traffic.sent)}, second copies: {again}")


def test_smtp_client_killed_at_each_call(relaying, tmp_path, record_property):  # noqa: F811
    i, traffic = relaying(**OFTEN)
    traffic.kinds = {f"{k}{n}": v for k, v in traffic.kinds.items() if k.startswith("out") for n in "12"}

    def burst_and_wait():
        before = len(traffic.sink.messages)
        traffic.burst()
        faults.wait(lambda: len(traffic.sink.messages) >= before + len(traffic.kinds), 30, "the messages at the sink")

    points = record(i.pids("smtp-client")[0], burst_and_wait, tmp_path / "path")
    for point in sample(points, 3):
        kill_at(i, "smtp-client", point, traffic, tmp_path / "trace")
        i.tool("queue", "flush", check=False)
        faults.wait(lambda: re.search(r"^\S+ +smtp-client +\d+ ready", i.tool("status", check=False).stdout, re.M), 30, "smtp-client")
    told(i, points, traffic, finish(traffic), record_property)


def test_bounce_killed_at_each_call(relaying, tmp_path, record_property):  # noqa: F811
    """Each sender hears of the failure; twice only when bounce died after qmgr had the notice."""
    i, traffic = relaying(**OFTEN)
    traffic.sink.answers["bad@out.test"] = "550 5.1.1 nobody"
    traffic.kinds = {f"bad{n}": ("bad@out.test", 40000 if n % 2 else 100) for n in range(6)}
    traffic.sender = "u1@example.test"

    def notices():
        """By the subject of the returned header, which is the hash of the body."""
        found = [re.findall(rb"^Subject: ([0-9a-f]{64})", m, re.M) for m in i.messages("u1@example.test") if b"multipart/report" in m]
        return collections.Counter(f[0].decode() for f in found if f)

    def burst_and_wait():
        before = len(notices())
        traffic.burst()
        faults.wait(lambda: len(notices()) >= before + len(traffic.kinds), 30, "the notices")

    points = record(i.pids("bounce")[0], burst_and_wait, tmp_path / "path")
    for point in sample(points, 3):
        kill_at(i, "bounce", point, traffic, tmp_path / "trace")
        i.tool("queue", "flush", check=False)
    traffic.sink.answers.pop("later@out.test")
    traffic.settle()
    got = notices()
    due = {k for k, v in traffic.acked.items() if v == "bad@out.test"}
    assert due <= set(got), f"{len(due - set(got))} of {len(due)} heard nothing"
    assert set(got) <= set(traffic.sent), "a notice of nothing"
    told(i, points, traffic, sum(n - 1 for n in got.values()), record_property)


def test_smtpd_killed_at_each_call(relaying, tmp_path, record_property):  # noqa: F811
    """The child that has the message, up to the dot and the 250 behind it."""
    i, traffic = relaying()
    traffic.kinds = {"small": ("u1@example.test", 100), "large": ("u1@example.test", 40000)}
    points = record(child_of(i, "smtpd", f":{i.port['smtp']}"), traffic.burst, tmp_path / "path")
    for point in sample(points, 5):
        traffic.until_taken("small")
        kill_at(i, "smtpd", point, traffic, tmp_path / "trace", pid=child_of(i, "smtpd", f":{i.port['smtp']}"))
    traffic.until_taken("small")
    told(i, points, traffic, finish(traffic), record_property)


class ByCommand(Traffic):
    """Messages by sendmail(1); a status of 0 counts as the acknowledgement."""

    trace, inject, etc = None, None, None

    def hand_in(self, to, text):
        words = [BIN / "sendmail", "-C", self.etc or self.i.etc, "-i", "-f", "me@example.test", to]
        if self.trace:
            words = ["strace", "-f", "-qq", "-o", self.trace, *(["-e", f"inject={self.inject}"] if self.inject else []), *words]
        done = subprocess.run(words, input=text.replace("\r\n", "\n").encode(), capture_output=True, timeout=60 * SLOW, check=False)
        return (250 if done.returncode == 0 else done.returncode), done.stderr


LOCAL = {"small": ("u1@example.test", 100), "large": ("u1@example.test", 40000)}


def test_submission_killed_at_each_call(make_instance, tmp_path, record_property):
    """What sendmail(1) could not hand in is in maildrop/, or its caller knows."""
    i = make_instance(direct=False, allow_deaths=True,
                      main={"service_throttle_time": "100ms", "submission_sessions_per_process": "100", "minimal_backoff_time": "1h"})
    traffic = ByCommand(i, None, LOCAL)
    traffic.burst()
    points = record(child_of(i, "submission", "--service submit"), traffic.burst, tmp_path / "path")
    for point in sample(points, 3):
        traffic.until_taken("small")
        kill_at(i, "submission", point, traffic, tmp_path / "trace", pid=child_of(i, "submission", "--service submit"))
    traffic.until_taken("small")
    faults.wait(lambda: not [p for p in (i.spool / "maildrop").iterdir() if not p.name.startswith(".")], 30, "an empty maildrop")
    traffic.settle()
    told(i, points, traffic, traffic.check(retries=True), record_property)


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_sendmail_killed_at_each_call(make_instance, tmp_path, up, record_property):
    """A message that sendmail(1) did not finish is nowhere, or whole; what it said is there is there."""
    i = make_instance(direct=False, allow_deaths=True)
    traffic = ByCommand(i, None, {"small": ("u1@example.test", 100)})
    if not up:
        i.stop()
        i.process = None
    traffic.trace = str(tmp_path / "path")
    assert traffic.one("small") == 250
    points, total = faults.path_of(traffic.trace)
    assert total >= faults.LEAST
    points.remove(("execve", 1))  # strace's own
    for name, n in sample(points, 12):
        traffic.inject = f"{name}:signal=KILL:when={n}"
        assert traffic.one("small") != 250, f"sendmail never came to call {n} of {name}"
    if not up:
        i.start()
    traffic.trace = None
    traffic.until_taken("small")
    faults.wait(lambda: not [p for p in (i.spool / "maildrop").iterdir() if p.name[:1] not in ".t"], 30, "an empty maildrop")
    faults.wait(lambda: set(traffic.acked) <= set(traffic.near()), 30, "the mail")
    traffic.settle()
    told(i, points, traffic, traffic.check(), record_property)


def test_pickup_killed_at_each_call(make_instance, tmp_path, record_property):
    i = make_instance(direct=False, allow_deaths=True, main={"service_throttle_time": "100ms", "minimal_backoff_time": "1h"})
    alone = tmp_path / "etc"  # of an instance that is down, with the same maildrop
    alone.mkdir()
    (alone / "main.cf").write_text((i.etc / "main.cf").read_text() + f"run_directory = {tmp_path}/nowhere\n")
    (alone / "master.cf").write_text((i.etc / "master.cf").read_text())
    traffic = ByCommand(i, None, LOCAL)
    traffic.etc = alone

    def burst_and_wait():
        before = len(traffic.near())
        traffic.burst()
        faults.wait(lambda: len(traffic.near()) >= before + 2, 30, "what was left there")

    points = record(i.pids("pickup")[0], burst_and_wait, tmp_path / "path")
    for point in sample(points, 3):
        kill_at(i, "pickup", point, traffic, tmp_path / "trace")
    faults.wait(lambda: set(traffic.acked) <= set(traffic.near()), 60, "all of it")
    traffic.settle()
    told(i, points, traffic, traffic.check(retries=True), record_property)
