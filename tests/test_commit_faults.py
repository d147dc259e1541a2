"""qmgr killed at each system call of its way: what was acknowledged is delivered, once, whole."""
import fcntl
import os
import re
import signal
import threading
import time

import pytest

import faults
from faults import Traffic, kill_at, record, sample
from sink import NextHop
from test_queue import relay_to

pytestmark = faults.NEEDS
KINDS = {"small": ("u1@example.test", 100), "large": ("u1@example.test", 40000), "out": ("a@out.test", 100),
         "out-large": ("b@out.test", 40000), "later": ("later@out.test", 100)}


@pytest.fixture
def relaying(make_instance):
    """relaying(direct) gives an instance and traffic of all kinds; "later" is deferred until the end."""
    sinks = []

    def make(direct=False, **main):
        i = make_instance(start=False, direct=direct, allow_deaths=True)
        i.set(**{**relay_to(i), "minimal_backoff_time": "1h", "maximal_backoff_time": "1h", "service_throttle_time": "100ms",
                 "qmgr_commit_threads": "1", "direct_delivery_deadline": "10s", "smtpd_client_connection_count_limit": "0", "log_level": "debug", **main})
        sinks.append(NextHop(i.port["sink"]))
        sinks[-1].answers["later@out.test"] = "450 4.2.0 not now"
        i.start()
        traffic = Traffic(i, sinks[-1], KINDS)
        for kind in KINDS:
            traffic.until_taken(kind)
        return i, traffic

    yield make
    for s in sinks:
        s.close()


def finish(traffic):
    """All of it is delivered; says how many came twice to the next hop."""
    traffic.sink.answers.clear()
    traffic.settle()
    return traffic.check()


@pytest.mark.parametrize("direct", [False, True], ids=["queued", "direct"])
def test_qmgr_killed_at_each_call(relaying, direct, tmp_path, record_property):
    i, traffic = relaying(direct)
    points = record(i.pids("qmgr")[0], traffic.burst, tmp_path / "path")
    for point in sample(points, 8):
        kill_at(i, "qmgr", point, traffic, tmp_path / "trace")
        traffic.until_taken("small")
    again = finish(traffic)
    record_property("points", len(points))
    record_property("second copies at the next hop", again)
    print(f"points={len(points)} acknowledged={len(traffic.acked)} of {len(traffic.sent)}, second copies at the next hop: {again}")


# --- the walk at the start ---

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Spool:
    """What a start has to put in order: files that were never acknowledged, and damaged ones."""

    def __init__(self, i, model):
        self.i, self.model, self.n = i, model, 0
        self.damaged, self.half = [], []

    def path(self):
        """A name that was not given yet, of long ago."""
        self.n += 1
        units = (self.n << 5 | self.n % 32) << 10
        name = "".join(ALPHABET[units >> 5 * k & 31] for k in reversed(range(12)))
        return self.i.spool / "queue" / name[9] / name

    def put(self, content, mode):
        path, new, stat = self.path(), self.i.spool / "new", self.model.stat()
        new.write_bytes(content)
        os.chown(new, stat.st_uid, stat.st_gid)
        new.chmod(mode)
        return new.rename(path)  # whole at once: the walk of a successor may be under way

    def fill(self):
        whole = self.model.read_bytes()
        self.half.append(self.put(whole[:-64], 0o600))         # killed before the footer was there
        self.half.append(self.put(whole, 0o200))               # killed before it was sealed
        self.half.append(self.put(b"", 0o600))
        self.damaged.append(self.put(whole, 0o600))            # another's record
        self.damaged.append(self.put(whole[:-200] + b"?" + whole[-199:], 0o600))

    def check(self):
        corrupt = {p.name for p in (self.i.spool / "queue/corrupt").iterdir()}
        assert not [p for p in self.half if p.exists()], "what nobody was told of is still there"
        assert {p.name for p in self.damaged} <= corrupt, "a damaged file is gone"
        assert not [p for p in self.damaged if p.exists()]


def restart_at(i, point, traffic, trace, inject=()):
    """A new qmgr is killed at that point of its walk; the next one ends it. False: it was not. Without a point: only what inject
    says."""
    recovered = i.log().count(" queue-recovered ")
    folder = os.open(i.spool / "queue", os.O_RDONLY)
    [old] = faults.wait(lambda: i.pids("qmgr"), 30, "qmgr")  # it may be dying of the last point
    os.kill(old, signal.SIGKILL)
    fcntl.flock(folder, fcntl.LOCK_EX)  # the walk waits for it
    [pid] = faults.wait(lambda: [p for p in i.pids("qmgr") if p != old], 30, "qmgr")
    faults.wait(lambda: re.search(rf"qmgr\[{pid}\]: queue-wait ", i.log()), 30, "the walk")
    s = faults.Strace(pid, *([f"{point[0]}:signal=KILL:when={point[1]}"] if point else inject), trace=str(trace))
    burst = threading.Thread(target=traffic.burst, args=("small", "large"))
    burst.start()
    os.close(folder)
    if point:
        end = time.monotonic() + 30
        while not s.dead() and time.monotonic() < end and i.log().count(" queue-recovered ") == recovered:
            traffic.burst("small", "large", "out")
    faults.wait(lambda: i.log().count(" queue-recovered ") > recovered, 30, "the end of the walk")
    burst.join()
    killed = s.dead()
    s.stop()
    return killed


def test_recovery_killed_at_each_call(relaying, tmp_path, record_property):
    i, traffic = relaying()
    for _ in range(2):
        traffic.burst("later")
    i.wait_log("status=deferred", count=3)
    kept = faults.wait(lambda: len(f := faults.queue_files(i)) == 3 and f, 30, "three that wait")
    spool = Spool(i, kept[0])
    spool.fill()
    restart_at(i, None, traffic, tmp_path / "path")
    points, total = faults.path_of(tmp_path / "path")
    assert total >= faults.LEAST
    for point in sample(points, 6):
        # The calls are counted by thread, and two threads share the walk: it is tried until one of them comes so far.
        assert any(spool.fill() or restart_at(i, point, traffic, tmp_path / "trace") for _ in range(20)), f"the walk never came to {point}"
        faults.wait(lambda: all(not p.exists() for p in spool.half + spool.damaged), 30, "order in the spool")
        spool.check()
        assert set(kept) <= set(faults.queue_files(i)), "an acknowledged message is gone"
        traffic.until_taken("small")
    record_property("points", len(points))
    print(f"points={len(points)} acknowledged={len(traffic.acked)} of {len(traffic.sent)}, second copies: {finish(traffic)}")
