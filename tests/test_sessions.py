"""Plays the sessions of tests/sessions/*.txt, many at once, against one instance for each configuration; the format
stands in tests/sessions/README. After each session another client is served, at the end no daemon has died."""
import concurrent.futures
import os
import queue
import re

import pytest

import session_player as sp
from instance import ROOT, Instance

SESSIONS, TABLES, INSTANCES = sp.load()
CLIENTS = 24  # at once


def columns():
    return [(t, n) for t in TABLES for n in range(len(t.columns))]


def address(number):
    return f"127.{10 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"


def play_session(i, number, session, drops):
    player = sp.Player(i, address(number), number, drops)
    try:
        lines = list(session.lines)
        uid = int(lines.pop(0)[3:]) if lines[0].startswith("AS ") else None
        if not any(line.startswith("R: ") for line in lines):
            player.open(session.service, session.plain, uid)
        player.play(lines)
        player.still_here()
        sp.witness(sp.Player(i, "127.0.0.1", number, drops), session.service)
    finally:
        player.close()


def play_column(i, number, table, n, drops):
    player = sp.Player(i, address(number), number, drops)
    wrong = []
    for command, want in table.column(n):
        try:
            sp.play_cell(player, table, table.columns[n], command, want)
        except (AssertionError, OSError, ValueError) as e:
            wrong.append(f"{command!r} in state {table.columns[n]}: {e}")
            player.close()
    player.close()
    sp.witness(sp.Player(i, "127.0.0.1", number, drops), table.service)
    assert not wrong, "\n".join(wrong)


class Server:
    """An instance and the outcome of each session that was asked for: None or an exception."""

    def __init__(self, folder, name, wanted):
        self.outcome, drops = {}, queue.Queue()
        main, override = {}, {}
        for line in INSTANCES[name]:
            service, _, setting = line.rpartition(": ")
            key, _, value = setting.partition(" = ")
            (override.setdefault(service, {}) if service else main)[key] = value
        pops = {f"p{n}@example.test": "pass" for n in range(1, 4)}
        self.instance = Instance(folder, users={**sp.USERS, **pops}, main=main, override=override,
                                 aliases=(sp.HERE / "aliases").read_text())
        for user in pops:
            drops.put(user)
        self.instance.start()
        try:
            for user in pops:  # delivery makes the mailbox
                w = sp.Wire(sp.Player(self.instance, "127.0.0.1", 0, drops), "pop3s")
                w.say(b"USER " + user.encode())
                assert w.say(b"PASS pass").startswith(b"+OK")
                w.close()
            with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
                jobs = {key: pool.submit(work, self.instance, *args, drops) for key, work, args in wanted}
            self.outcome = {key: job.exception() for key, job in jobs.items()}
        except BaseException:
            self.stop(False)
            raise

    def stop(self, good=True):
        self.instance.allow_deaths = not good
        self.instance.stop()


@pytest.fixture(scope="module")
def servers(request, tmp_path_factory):
    """name -> Server, started when first asked for, with all sessions of this run that it plays."""
    running = {}
    jobs = {}
    for item in request.session.items:
        if item.module is request.module and hasattr(item, "callspec") and "key" in item.callspec.params:
            key = item.callspec.params["key"]
            if key < len(SESSIONS):
                jobs.setdefault(SESSIONS[key].instance, []).append((key, play_session, (key, SESSIONS[key])))
            else:
                table, n = columns()[key - len(SESSIONS)]
                jobs.setdefault(table.instance, []).append((key, play_column, (key, table, n)))

    def get(name):
        if name not in running:
            running[name] = Server(tmp_path_factory.mktemp(f"sessions-{name}") / "i", name, jobs[name])
        return running[name]

    yield get
    for server in running.values():
        server.stop()


def marks(session):
    other = session.lines[0].startswith("AS ") and os.geteuid() != 0
    return [pytest.mark.xdist_group(f"sessions-{session.instance}"),
            *([pytest.mark.skip(reason="needs root, to be another user")] if other else [])]


def params():
    out = [pytest.param(n, s.instance, id=f"{s.service}: {s.name}", marks=marks(s)) for n, s in enumerate(SESSIONS)]
    return out + [pytest.param(len(SESSIONS) + n, t.instance, id=f"{t.service}: {t.name}, {t.columns[c]}",
                               marks=pytest.mark.xdist_group(f"sessions-{t.instance}"))
                  for n, (t, c) in enumerate(columns())]


@pytest.mark.parametrize("key,name", params())
def test_session(servers, key, name):
    wrong = servers(name).outcome[key]
    if wrong:
        raise wrong


ENGINES = {
    "lib/smtp/server_command.c": ("smtp", "submission", "lmtp", "local"),
    "lib/imap/login.c": ("imap",), "lib/imap/session.c": ("imaps",),
    "lib/pop3/login.c": ("pop3",), "lib/pop3/engine.c": ("pop3",), "lib/pop3/answer.c": ("pop3",),
}


def test_each_command_of_an_engine_stands_in_the_table_of_its_states():
    rows = {}
    for t in TABLES:
        rows.setdefault(t.service, set()).update(re.match(r"\w+", command)[0].upper() for command, _ in t.rows)
    seen = set()
    for path, services in ENGINES.items():
        commands = set(re.findall(r'^\t\{ "([A-Z]+)", (?:imap_cmd_|cmd_|ANY|IN|IDLE)', (ROOT / path).read_text(), re.M))
        for service in services:
            assert commands <= rows[service], (service, commands - rows[service])
        seen |= commands
    assert len(seen) > 50, seen


def test_there_are_enough():
    """The count that the sessions claim, and that each reply of SMTP is named with its enhanced code."""
    cells = sum(len(t.column(n)) for t, n in columns())
    assert len(SESSIONS) >= 350 and cells >= 500, (len(SESSIONS), cells)
    for s in SESSIONS:
        service = s.service
        for line in s.lines:
            if line.startswith("OPEN "):
                service = line[5:].partition(":")[0]
            if service in sp.SMTP and line.startswith("S: ") and not re.match(r"S: \d{3}[ -]\d\.\d+\.\d+", line):
                assert sp.PLAIN_REPLY.match(line[3:]) or line == "S: ...", f"{s.name}: {line}"
