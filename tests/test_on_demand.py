"""Services on demand: started by the first client, gone when idle, back for the next one."""
import os
import poplib
import re
import signal
import socket
import time

import pytest

from instance import SLOW

ON_DEMAND = {"pop3": {"service_on_demand": "yes", "process_idle_limit": "1s"}}


def state(i, name="pop3"):
    row = re.search(rf"^127.0.0.1:{i.port[name]} .*$", i.tool("status").stdout, re.M)[0]
    return row.split()[3]


def wait_state(i, wanted, seconds=10):
    end = time.monotonic() + seconds * SLOW
    while state(i) != wanted:
        assert time.monotonic() < end, i.tool("status").stdout
        time.sleep(0.05)


def pids(i):
    return [pid for pid, argv in i.processes() if f"127.0.0.1:{i.port['pop3']}" in argv]


def login(i):
    pop = poplib.POP3("127.0.0.1", i.port["pop3"], timeout=20 * SLOW)
    assert pop.welcome.startswith(b"+OK")
    return pop


@pytest.fixture
def waiting(make_instance):
    i = make_instance(override=ON_DEMAND, all_running=True)
    wait_state(i, "waiting")  # the fixture has knocked
    assert not pids(i)
    return i


def test_started_by_a_client_and_idle_again(waiting):
    i = waiting
    for _ in range(2):
        pop = login(i)
        assert state(i) == "ready" and pids(i)
        time.sleep(2.5)
        assert pop.noop().startswith(b"+OK")  # a client holds it
        pop.quit()
        wait_state(i, "waiting")
        assert not pids(i)
    assert len(i.wait_log("service-idle", count=3)) >= 3


def test_many_first_clients(waiting):
    socks = [socket.create_connection(("127.0.0.1", waiting.port["pop3"]), 10 * SLOW) for _ in range(20)]
    for s in socks:
        s.settimeout(20 * SLOW)
        assert s.recv(100).startswith(b"+OK")


def test_crash_and_reload(waiting):
    i = waiting
    i.allow_deaths = True
    pop = login(i)
    os.kill(min(pids(i)), signal.SIGKILL)
    pop.close()
    end = time.monotonic() + 10 * SLOW
    while True:
        try:
            login(i).quit()
            break
        except (OSError, EOFError, poplib.error_proto):
            assert time.monotonic() < end
            time.sleep(0.1)
    wait_state(i, "waiting")
    i.override = {}
    i.write()
    i.reload()
    wait_state(i, "ready")  # a standing service from now on
    time.sleep(2.5)
    assert state(i) == "ready"
    i.override = ON_DEMAND
    i.write()
    i.reload()
    wait_state(i, "waiting")
    login(i).quit()


def test_upgrade_keeps_it_waiting(waiting):
    waiting.tool("upgrade")
    time.sleep(0.5)
    waiting.wait_ready()
    wait_state(waiting, "waiting")
    login(waiting).quit()
