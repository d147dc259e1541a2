"""Lists and .forward files as qmgr resolves them: whom they ask dies or is silent, the message goes, limits, many at once."""
import contextlib
import os
import re
import signal
import threading

import pytest

from instance import wait
from test_local import DOMAIN, maildir, root_only, send, start, users  # noqa: F401  (a fixture)

pytestmark = root_only


def write(path, addresses):
    """A list that is read; it is written anew by rename."""
    new = path.with_name("new")
    new.write_text("# members\n" + "".join(f"{a}\n" for a in addresses))
    new.chmod(0o644)
    new.rename(path)
    return path


def unknown(n):
    """Addresses that the system has to be asked about, every time."""
    return [f"no-such-user-{k}@{DOMAIN}" for k in range(n)]


@contextlib.contextmanager
def stopped(*pids):
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@pytest.fixture
def lists(make_instance, tmp_path):
    """Two lists, big and small."""
    tmp_path.chmod(0o755)
    return start(make_instance, direct=False, aliases="".join(f"{n}: :include:{tmp_path / n}\n" for n in ("big", "small")),
                 minimal_backoff_time="1h", transport_maps="inline:{ {far.test = discard:} }")


def in_memory(i):
    return int(re.search(r"^qmgr\[.*\bin_memory=(\d+)", i.tool("status").stdout, re.M)[1])


def lines_of(i, name, what):
    return [line for line in i.log().splitlines() if f" to=<{name}@" in line and re.search(what, line)]


@contextlib.contextmanager
def waiting(i, tmp_path, **members):
    """Messages to lists of these members, up to the delivery, which does not start yet. Gives the ID of the first."""
    for name, addresses in members.items():
        write(tmp_path / name, addresses)
    with stopped(*i.pids("local")):
        for name in members:
            send(i, f"{name}@{DOMAIN}", sender="")
        wait(lambda: f"running_local={len(members)} " in i.tool("status").stdout, 10, "the jobs")
        yield re.search(r" qid=(\w+) .* code=250 ", i.wait_log(" smtp-message ")[0])[1]


@contextlib.contextmanager
def held(i, tmp_path, n, **others):
    """The list of n, expanded by its delivery, whose members wait for nss, which is stopped. Gives the ID."""
    with contextlib.ExitStack() as stack:
        with waiting(i, tmp_path, big=unknown(n), **others) as qid:
            stack.enter_context(stopped(*i.pids("nss")))
        i.wait_log(rf' to=<big@.* status=expanded .*text="forwarded to {n} addresses"')
        yield qid


@pytest.mark.parametrize("daemon", ["maps", "nss"])
def test_who_is_asked_dies_within_an_expansion(lists, tmp_path, daemon):
    """What the former one had not answered the next one is asked; the list waits for no next attempt."""
    i = lists
    i.allow_deaths = True
    (former,) = i.pids(daemon)
    with held(i, tmp_path, 600):
        os.kill(former, signal.SIGKILL)
        wait(lambda: i.pids(daemon) not in ([], [former]), 10, f"the next {daemon}")
    i.wait_log(r'text="expanded to 600 recipients as ', 30)
    assert not lines_of(i, "big", "status=deferred")


def test_a_silent_nss_defers_the_list_by_name(lists, tmp_path):
    """The list is put off once the first question timed out; the reason names the address. What needs no nss goes on."""
    i = lists
    i.set(user_lookup_timeout="5s")
    i.tool("reload")
    with held(i, tmp_path, 2500, small=["a@far.test", "b@far.test"]) as qid:
        i.wait_log(r'text="expanded to 2 recipients as ')
        assert not lines_of(i, "big", "status=deferred"), "it waited for the large list"
        (line,) = i.wait_log(rf"qid={qid} .*to=<big@.* status=deferred ", 20)
    assert re.search(rf'dsn=4.3.0 .*text="<no-such-user-\d+@{DOMAIN}> of the expansion: Temporary lookup failure"', line), line
    assert "of the expansion: Temporary lookup failure" in i.tool("queue", "list").stdout
    assert len(re.findall(r" user-lookup-timeout ", i.log())) <= 64, "one expansion has its share of the window, no more"
    # what was not answered is remembered for a second
    wait(lambda: i.tool("queue", "flush") and lines_of(i, "big", "expanded to 2500 recipients as "), 60, "the list")


@pytest.mark.parametrize("when", ["asked", "reported"])
def test_a_deleted_message_expands_no_more(lists, tmp_path, when):
    """Deleted while maps is asked about its addresses, and before its delivery has reported them."""
    i = lists
    if when == "asked":
        with held(i, tmp_path, 600) as qid:
            assert i.tool("queue", "delete", qid).stdout == "1 message\n"
    else:
        with waiting(i, tmp_path, big=unknown(600)) as qid:
            assert i.tool("queue", "delete", qid).stdout == "1 message\n"
    wait(lambda: in_memory(i) == 0, 20, "the end of the message")
    assert "expanded to 600" not in i.log() and i.tool("queue", "list").stdout == "The queue is empty.\n"
    for _ in range(5):  # nothing of the window was kept
        send(i, f"big@{DOMAIN}", sender="")
    i.wait_log(r'text="expanded to 600 recipients as ', 60, 5)


def test_a_large_message_leaves_room_for_the_routes_of_others(users, make_instance):  # noqa: F811
    """300 recipients whose routes need nss, which is stopped; a message to a virtual user goes by."""
    i = start(make_instance, direct=False, local_recipient_maps="", minimal_backoff_time="1h", user_lookup_timeout="5s")
    with stopped(*i.pids("nss")):
        large = threading.Thread(target=send, args=(i, unknown(300)), kwargs={"sender": ""})
        large.start()
        wait(lambda: re.search(r"^maps\[.* waiting=128 ", i.tool("status").stdout, re.M), 10, "the questions of the large one")
        send(i, "u1@example.test")
        i.wait_messages("u1@example.test")
        assert not re.search(r" to=<no-such-user-\d+@", i.log())
        large.join()
    assert len(i.wait_log(r"to=<no-such-user-\d+@.* status=deferred", 30, 300)) == 300


def test_many_lists_at_once(users, make_instance, tmp_path):  # noqa: F811
    """40 messages to lists of 100, each delivered once to each member."""
    a = users.add()
    tmp_path.chmod(0o755)
    names = [f"l{n}" for n in range(40)]
    for n in names:
        write(tmp_path / n, [f"{n}-{k}@far.test" for k in range(100)] + [f"{a}@{DOMAIN}"])
    i = start(make_instance, aliases="".join(f"{n}: :include:{tmp_path / n}\n" for n in names),
              transport_maps="inline:{ {far.test = discard:} }")
    for n in names:
        send(i, f"{n}@{DOMAIN}")
    assert len(maildir(users.homes[a], 40, 60)) == 40
    sent = i.wait_log(r" to=<l\d+-\d+@far.test> status=sent", 60, 4000)
    assert len(sent) == len({re.search(r" to=<([^>]*)>", line)[1] for line in sent}) == 4000


# --- never cut ---

def test_more_finals_than_a_message_has_are_refused(make_instance, tmp_path):
    """100 members, each an alias of 700: more than 65,536 addresses."""
    tmp_path.chmod(0o755)
    table = tmp_path / "virtual"
    table.write_text("".join(f"v{n}@far.test " + ", ".join(f"{n}.{k}@a.test" for k in range(700)) + "\n" for n in range(100)))
    write(tmp_path / "big", [f"v{n}@far.test" for n in range(100)])
    i = start(make_instance, direct=False, aliases=f"big: :include:{tmp_path / 'big'}\n", virtual_alias_maps=f"texthash:{table}")
    send(i, f"big@{DOMAIN}", sender="")
    (line,) = i.wait_log(r" to=<big@.* status=bounced ", 60)
    assert re.search(r'dsn=5.2.4 .*text="expands to too many addresses" remedy="split the list', line), line
    assert "expanded to" not in i.log()


def long_list(path, n):
    """An alias of n addresses of 500 bytes, in files of less than a MiB."""
    files = []
    for at in range(0, n, 2000):
        members = [f"{k:06d}{'x' * 200}@{'.'.join('d' * 55 for _ in range(5))}.test" for k in range(at, min(at + 2000, n))]
        files.append(write(path.with_name(f"{path.name}.{at}"), members))
    return ", ".join(f":include:{f}" for f in files)


def test_large_lists_in_one_job_are_whole(make_instance, tmp_path):
    """Two lists of 6 MiB each, and a small one behind them, for one delivery process in one job."""
    tmp_path.chmod(0o755)
    i = start(make_instance, direct=False, defer_transports="smtp",
              aliases=f"one: {long_list(tmp_path / 'one', 12000)}\ntwo: {long_list(tmp_path / 'two', 12000)}\n"
                      f"three: {long_list(tmp_path / 'three', 3000)}\n")
    send(i, [f"{n}@{DOMAIN}" for n in ("one", "two", "three")], sender="")
    for name, n in (("one", 12000), ("two", 12000), ("three", 3000)):
        i.wait_log(rf' to=<{name}@.*text="expanded to {n} recipients as ', 120)


def test_a_dead_table_is_told_with_the_address(make_instance, tmp_path):
    tmp_path.chmod(0o755)
    write(tmp_path / "big", ["good@far.test", "poor@relay.test", "fine@far.test"])
    i = start(make_instance, direct=False, aliases=f"big: :include:{tmp_path / 'big'}\n", relay_domains="relay.test",
              relay_recipient_maps="lmdb:/nonexistent/table", minimal_backoff_time="1h")
    send(i, f"big@{DOMAIN}", sender="")
    (line,) = i.wait_log(r" to=<big@.* status=deferred ")
    assert 'text="<poor@relay.test> of the expansion: Temporary lookup failure"' in line, line
    assert "/nonexistent/table" in next(x for x in i.log().splitlines() if "table-open" in x)
    assert "expanded to" not in i.log()
