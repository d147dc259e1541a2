"""The wall clock is set, far ahead and far back, while qmgr runs: mail neither expires nor waits because of it."""
import email.utils
import mmap
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import time

import pytest

from instance import BIN, SLOW, queue_files, wait
from sink import NextHop
from test_queue import queue_id, relay_to, report_of, send, wait_empty

pytestmark = pytest.mark.skipif(SLOW != 1, reason="a sanitizer wants to be the first library")
HERE = pathlib.Path(__file__).parent
DAY = 86400


class Clock:
    """Puts a script in the place of a program, which starts it with a wall clock of its own."""

    def __init__(self, folder, programs, role):
        library, numbers, real = folder / "stepped_clock.so", folder / "clock", folder / "real" / role
        subprocess.run([*os.environ.get("CC", "cc").split(), "-shared", "-fPIC", "-O2", "-D_GNU_SOURCE", "-o", library, HERE / "stepped_clock.c"],
                       check=True)
        numbers.write_bytes(bytes(16))
        with open(numbers, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), 16)
        real.parent.mkdir()
        shutil.copy(BIN / role, real)
        (programs / role).unlink()
        (programs / role).write_text(f'#!/bin/sh\nLD_PRELOAD={library} CLOCK_FILE={numbers} exec {real} "$@"\n')
        (programs / role).chmod(0o755)
        for d in (folder, programs, real.parent):
            d.chmod(0o755)

    def set(self, seconds, monotonic=0):
        self.map[:] = struct.pack("qq", seconds, monotonic)


@pytest.fixture
def stepping(make_instance, tmp_path):
    """stepping(**parameters) gives an instance whose qmgr has a clock of its own, that clock, and a next hop that defers."""
    sinks = []

    def make(**main):
        programs = tmp_path / "bin"
        shutil.copytree(BIN, programs, symlinks=True)
        clock = Clock(tmp_path, programs, "qmgr")
        i = make_instance(start=False, direct=False, allow_deaths=True)
        i.set(**{**relay_to(i), "daemon_directory": programs, "minimal_backoff_time": "1s", "maximal_backoff_time": "1s",
                 "default_destination_concurrency_failed_cohort_limit": "1000", "service_throttle_time": "100ms", **main})
        sinks.append(NextHop(i.port["sink"]))
        sinks[-1].usual = "450 4.2.0 not now"
        i.start()
        return i, clock, sinks[-1]

    yield make
    for s in sinks:
        s.close()


def deferrals(i, name):
    return len(re.findall(rf"qid={name} .*status=deferred", i.log()))


def three_more(i, name):
    """It is tried three more times, at the pace of the schedule."""
    began, before = time.monotonic(), deferrals(i, name)
    wait(lambda: deferrals(i, name) >= before + 3, 30, "three attempts")
    return time.monotonic() - began


@pytest.mark.parametrize("days", [30, -30], ids=["ahead", "back"])
def test_a_step_while_qmgr_runs(stepping, days):
    i, clock, sink = stepping(delay_warning_time="1d")
    old = queue_id(send(i, "old@out.test", sender="u1@example.test"))
    three_more(i, old)
    clock.set(days * DAY)
    assert three_more(i, old) < 20
    [line, *_] = i.wait_log(r"warning: clock-stepped by=[+-][\d.]+s remedy=")
    assert abs(float(re.search(r"by=([+-][\d.]+)s", line)[1]) - days * DAY) < 5
    new = queue_id(send(i, "new@out.test", sender="u1@example.test"))
    assert new > old, "queue IDs go on"
    assert three_more(i, new) < 20
    i.tool("queue", "hold", new), i.tool("queue", "release", new)
    clock.set(-days * DAY)
    third = queue_id(send(i, "third@out.test", sender="u1@example.test"))
    assert third > new
    for name in (old, new, third):
        assert three_more(i, name) < 20
    assert sorted(p.name for p in queue_files(i)) == sorted([old, new, third])
    assert not i.messages("u1@example.test"), "no notice, neither of a failure nor of a delay"
    sink.usual = "250 ok"
    wait_empty(i)
    assert len(sink.messages) == 3


def test_a_message_expires_by_the_time_that_passed(stepping):
    """Back by a month, and it goes back to its sender after its five seconds all the same."""
    i, clock, _ = stepping(maximal_queue_lifetime="5s")
    name = queue_id(send(i, "x@out.test", sender="u1@example.test"))
    i.wait_log(rf"qid={name} .*status=deferred")
    began = time.monotonic()
    clock.set(-30 * DAY)
    content = i.wait_messages("u1@example.test", 1, 20)[0]
    assert time.monotonic() - began < 15
    assert report_of(content)[1][1].get_payload()[1]["Status"] == "5.4.7"
    wait_empty(i)


@pytest.mark.parametrize("well", [True, False], ids=["delivered", "returned"])
def test_what_is_past_its_life_at_a_start_is_tried_once_more(stepping, well):
    """A machine without a clock of its own boots in the past and is then set right; or it was down for a week."""
    i, clock, sink = stepping(minimal_backoff_time="3s", maximal_backoff_time="1h", maximal_queue_lifetime="1h")
    clock.set(-30 * DAY)
    i.kill_program("qmgr")
    i.wait_log("queue-recovered", count=2)
    i.wait_ready()
    name = queue_id(send(i, "x@out.test", sender="u1@example.test"))
    i.wait_log(rf"qid={name} .*status=deferred")
    clock.set(0)
    if well:
        sink.usual = "250 ok"
    before = deferrals(i, name)
    i.kill_program("qmgr")
    i.wait_log("queue-recovered.* messages=1")
    if well:
        sink.wait(1)
        wait_empty(i)
        assert not i.messages("u1@example.test")
        return
    content = i.wait_messages("u1@example.test", 1, 30)[0]
    assert deferrals(i, name) > before, "it was not tried"
    assert report_of(content)[1][1].get_payload()[1]["Status"] == "5.4.7"
    wait_empty(i)


def test_mail_from_the_future_does_not_stay_for_years(stepping):
    """It came while the clock was ahead: after a start with the right one its life begins then."""
    i, clock, _ = stepping(maximal_queue_lifetime="4s", maximal_backoff_time="1s")
    clock.set(3650 * DAY)
    i.kill_program("qmgr")
    i.wait_log("queue-recovered", count=2)
    i.wait_ready()
    name = queue_id(send(i, "x@out.test", sender="u1@example.test"))
    i.wait_log(rf"qid={name} .*status=deferred")
    os.kill(i.pids("qmgr")[0], signal.SIGKILL)
    clock.set(0)
    i.wait_log("queue-recovered.* messages=1")
    content = i.wait_messages("u1@example.test", 1, 30)[0]
    report = report_of(content)[1][1].get_payload()
    assert report[1]["Status"] == "5.4.7"
    assert email.utils.parsedate_to_datetime(report[0]["Arrival-Date"])
    wait_empty(i)
