"""The daemons around qmgr killed at each system call of their way: nothing that was acknowledged is lost or half."""
import collections
import re

import pytest

import agents
import faults
from agents import ByCommand
from faults import kill_at, record, sample
from test_commit_faults import finish, relaying  # noqa: F401 (a fixture)

pytestmark = faults.NEEDS


def path_of(a, tmp_path):
    return record(a.pid(), lambda: a.act(whole=True), tmp_path / "path")


def told(points, traffic, again, record_property):
    record_property("points", len(points))
    record_property("second copies", again)
    print(f"points={len(points)} acknowledged={len(traffic.acked)} of {len(traffic.sent)}, second copies: {again}")


def test_smtp_client_killed_at_each_call(relaying, tmp_path, record_property):  # noqa: F811
    a = agents.smtp_client(relaying)
    points = path_of(a, tmp_path)
    for point in sample(points, 3):
        kill_at(a.i, "smtp-client", point, a.traffic, tmp_path / "trace")
        a.i.tool("queue", "flush", check=False)
        faults.wait(lambda: re.search(r"^\S+ +smtp-client +\d+ ready", a.i.tool("status", check=False).stdout, re.M), 30, "smtp-client")
    told(points, a.traffic, finish(a.traffic), record_property)


def test_bounce_killed_at_each_call(relaying, tmp_path, record_property):  # noqa: F811
    """Each sender hears of the failure; twice only when bounce died after qmgr had the notice."""
    a = agents.bounce(relaying)
    i, traffic = a.i, a.traffic

    def notices():
        """By the subject of the returned header, which is the hash of the body."""
        found = [re.findall(rb"^Subject: ([0-9a-f]{64})", m, re.M) for m in i.messages("u1@example.test") if b"multipart/report" in m]
        return collections.Counter(f[0].decode() for f in found if f)

    points = path_of(a, tmp_path)
    for point in sample(points, 3):
        kill_at(i, "bounce", point, traffic, tmp_path / "trace")
        i.tool("queue", "flush", check=False)
    traffic.sink.answers.pop("later@out.test")
    traffic.settle()
    got = notices()
    due = {k for k, v in traffic.acked.items() if v == "bad@out.test"}
    assert due <= set(got), f"{len(due - set(got))} of {len(due)} heard nothing"
    assert set(got) <= set(traffic.sent), "a notice of nothing"
    told(points, traffic, sum(n - 1 for n in got.values()), record_property)


def test_smtpd_killed_at_each_call(relaying, tmp_path, record_property):  # noqa: F811
    """The child that has the message, up to the dot and the 250 behind it."""
    a = agents.smtpd(relaying)
    points = path_of(a, tmp_path)
    for point in sample(points, 5):
        a.traffic.until_taken("small")
        kill_at(a.i, "smtpd", point, a.traffic, tmp_path / "trace", pid=a.pid())
    a.traffic.until_taken("small")
    told(points, a.traffic, finish(a.traffic), record_property)


def test_submission_killed_at_each_call(make_instance, tmp_path, record_property):
    """What sendmail(1) could not hand in is in maildrop/, or its caller knows."""
    a = agents.submission(make_instance)
    points = path_of(a, tmp_path)
    for point in sample(points, 3):
        a.traffic.until_taken("small")
        kill_at(a.i, "submission", point, a.traffic, tmp_path / "trace", pid=a.pid())
    a.traffic.until_taken("small")
    agents.maildrop_is_empty(a.i)
    a.traffic.settle()
    told(points, a.traffic, a.traffic.check(retries=True), record_property)


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
    agents.maildrop_is_empty(i, also="t")
    faults.wait(lambda: set(traffic.acked) <= set(traffic.near()), 30, "the mail")
    traffic.settle()
    told(points, traffic, traffic.check(), record_property)


def test_pickup_killed_at_each_call(make_instance, tmp_path, record_property):
    a = agents.pickup(make_instance, tmp_path)
    points = path_of(a, tmp_path)
    for point in sample(points, 3):
        kill_at(a.i, "pickup", point, a.traffic, tmp_path / "trace")
    faults.wait(a.arrived, 60, "all of it")
    a.traffic.settle()
    told(points, a.traffic, a.traffic.check(retries=True), record_property)
