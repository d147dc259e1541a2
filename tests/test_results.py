"""What is reported counts for the message and the recipient that it names, whatever the numbers say.

The test is a second smtp-client of a live qmgr, and reports what no honest one would: the outcome of another message, of
another recipient, two outcomes for one. None of that may count as delivered: the mail stays in the queue. And it is the
qmgr of a live smtpd, and says that it has a message when it means another: the client may not be told 250.
"""
import os
import smtplib
import socket
import struct
import threading

import pytest

from instance import SLOW, queue_files, wait
from test_ipc import BY_NAME, Receiver, pid_of, send
from test_queue import queue_id
from test_queue import send as hand_in

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="takes descriptors of other processes")
HOPS = 40  # a next hop goes to one of the two, by chance
DONE, DEFERRED = 0, 1


def text(s):
    return struct.pack("<I", len(s)) + s


def result(status, enhanced, said, address):
    """A rcpt_result of slot 0."""
    return struct.pack("<IB", 0, status) + text(enhanced) + text(said) + text(b"") + text(address)


class Liar(threading.Thread):
    """Takes jobs of qmgr; cases: {name: (the queue ID's place, results)}, used in turn."""

    def __init__(self, channel, cases):
        super().__init__(daemon=True)
        self.channel, self.cases, self.told = channel, cases, {}

    def run(self):
        while data := self.channel.recv(65536):
            number, job = struct.unpack_from("<HI", data)
            if number != BY_NAME["send_job"].number:
                continue
            name = data[10:10 + struct.unpack_from("<I", data, 6)[0]]
            case = list(self.cases)[len(self.told) % len(self.cases)]
            reported, results = self.cases[case]
            address = next(b"u@h%d.test" % n for n in range(HOPS) if b"u@h%d.test" % n in data)
            items = [result(status, enhanced, b"the liar's word", whose or address) for status, enhanced, whose in results]
            self.told[name.decode()] = case
            send(self.channel, struct.pack("<HI", BY_NAME["send_result"].number, job) + text(reported or name)
                 + struct.pack("<I", len(items)) + text(b"".join(items)) + text(b"liar") + text(b"") + bytes(8))


CASES = {
    "true": (b"", [(DONE, b"2.0.0", b"")]),
    "another message": (b"0" * 12, [(DONE, b"2.0.0", b"")]),
    "another recipient": (b"", [(DONE, b"2.0.0", b"somebody@else.test")]),
    "deferred, then done": (b"", [(DEFERRED, b"4.2.0", b""), (DONE, b"2.0.0", b"")]),
    "no result": (b"", []),
}


def test_result_of_another(make_instance):
    i = make_instance(start=False)
    table = ", ".join(f"h{n}.test=smtp:[127.0.0.1]:{i.port['sink']}" if not n else f"h{n}.test=smtp:[127.0.1.{n}]:{i.port['sink']}"
                      for n in range(HOPS))
    i.set(relay_domains=" ".join(f"h{n}.test" for n in range(HOPS)), transport_maps=f"inline:{{ {table} }}",
          smtp_client_ports=f"25, {i.port['sink']}", smtp_tls_security_level="none", minimal_backoff_time="1h",
          maximal_backoff_time="1h", direct_delivery_deadline="10s")
    i.start()
    qmgr = Receiver("qmgr", pid_of(i, "qmgr"))
    with qmgr.link("smtp-client") as channel:
        channel.settimeout(None)
        liar = Liar(channel, CASES)
        liar.start()
        replies = [hand_in(i, f"u@h{n}.test") for n in range(HOPS)]
        ids = {queue_id(r) for r in replies}
        told = dict(liar.told)
        waiting = wait(lambda: {p.name for p in queue_files(i)}, 10, "the queue")
        channel.shutdown(socket.SHUT_RDWR)
    assert set(told) <= ids and set(told.values()) == set(CASES), told
    i.wait_log(" delivery ", count=HOPS)
    log = i.log()
    for name, case in told.items():
        lines = [line for line in log.splitlines() if name in line and (" delivery " in line or "odd-report" in line)]
        sent = [line for line in lines if "status=sent" in line]
        if case == "true":
            assert sent and name not in waiting, (case, lines)
            continue
        assert not sent and name in waiting, (case, lines)
        odd = [line for line in lines if "odd-report" in line]
        assert len(odd) == (case != "no result"), (case, lines)
    assert log.count('reason="it names another message"') == list(told.values()).count("another message")
    assert log.count('reason="it names another recipient"') == list(told.values()).count("another recipient")
    assert log.count('text="the delivery process reported no result"') == list(told.values()).count("no result")
    assert log.count('reason="it has its result already"') == list(told.values()).count("deferred, then done")


def texts(data, at, n):
    """n texts of a message, from there on."""
    out = []
    for _ in range(n):
        size = struct.unpack_from("<I", data, at)[0]
        out.append(data[at + 4:at + 4 + size])
        at += 4 + size
    return out


@pytest.mark.parametrize("session, code", [(None, 250), (b"ANOTHER1", 451), (b"", 451)], ids=["own", "another", "none"])
def test_verdict_of_another(make_instance, session, code):
    i, commits = make_instance(start=False), []
    i.services = [f"127.0.0.1:{i.port['smtp']} inet n - y - - smtpd"]  # so that there is one child
    i.write()
    i.start()
    with smtplib.SMTP("127.0.0.1", i.port["smtp"], timeout=60 * SLOW) as client:
        client.ehlo("client.test")
        receiver = Receiver("smtpd-child", pid_of(i, "smtpd-child"))
        with receiver.link("qmgr") as channel:
            def answer():
                while data := channel.recv(65536):
                    number, transaction = struct.unpack_from("<HI", data)
                    if number == BY_NAME["mail_commit"].number:
                        own = texts(data, 6, 2)[1]
                        commits.append(own)
                        send(channel, struct.pack("<HIH", BY_NAME["mail_result"].number, transaction, 250) + text(b"2.0.0") + text(b"Ok")
                             + text(b"0" * 12) + text(own if session is None else session) + struct.pack("<I", 0) + text(b""))

            channel.settimeout(None)
            threading.Thread(target=answer, daemon=True).start()
            assert client.mail("s@example.test")[0] == 250 and client.rcpt("u1@example.test")[0] == 250
            try:
                got = client.data("Subject: x\r\n\r\nx\r\n")[0]
            except smtplib.SMTPDataError as e:
                got = e.smtp_code
            channel.shutdown(socket.SHUT_RDWR)
    assert len(commits) == 1 and got == code
    i.wait_log(f" smtp-message .* code={code} ")
    assert i.log().count(" odd-verdict ") == (code == 451)


def test_a_verdict_that_ends_the_session(make_instance):
    """421 for the first of many recipients, with a word about another: what the transaction had is not looked at again."""
    i, many = make_instance(start=False), 100
    i.services = [f"127.0.0.1:{i.port['lmtp']} inet n - y - - smtpd -o service_protocol=lmtp"]
    i.write()
    i.start()
    with smtplib.LMTP("127.0.0.1", i.port["lmtp"], timeout=60 * SLOW) as client:
        client.ehlo("client.test")
        receiver = Receiver("smtpd-child", pid_of(i, "smtpd-child"))
        with receiver.link("qmgr") as channel:
            def answer():
                while data := channel.recv(65536):
                    number, transaction = struct.unpack_from("<HI", data)
                    if number == BY_NAME["mail_commit"].number:
                        word = struct.pack("<IB", many - 1, 2) + text(b"5.0.0") + text(b"no") + text(b"") + text(b"")
                        send(channel, struct.pack("<HIH", BY_NAME["mail_result"].number, transaction, 421) + text(b"4.3.0")
                             + text(b"gone") + text(b"") + text(b"") + struct.pack("<I", 1) + text(word))

            channel.settimeout(None)
            threading.Thread(target=answer, daemon=True).start()
            assert client.mail("s@example.test")[0] == 250
            for _ in range(many):
                assert client.rcpt("u1@example.test", ["ORCPT=rfc822;" + "x" * 400])[0] == 250
            client.putcmd("DATA")
            assert client.getreply()[0] == 354
            client.send("Subject: x\r\n\r\nx\r\n.\r\n")
            assert client.getreply()[0] == 421
            with pytest.raises(smtplib.SMTPServerDisconnected):
                client.getreply()
            channel.shutdown(socket.SHUT_RDWR)


def test_a_network_of_ipv6_is_one_client(make_instance):
    """The rates of messages and recipients are those of the prefix, as the counts of connections are."""
    i, asked = make_instance(start=False), []
    i.set(inet_protocols="all", inet_interfaces="[::1]", smtpd_client_message_rate_limit="9", smtpd_client_recipient_rate_limit="9",
          smtpd_client_event_limit_exceptions="")
    with socket.socket(socket.AF_INET6) as s:
        try:
            s.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
    i.services = [f"[::1]:{i.port['smtp']} inet n - y - - smtpd"]
    i.write()
    i.start()
    with smtplib.SMTP("::1", i.port["smtp"], timeout=60 * SLOW) as client:
        client.ehlo("client.test")
        receiver = Receiver("smtpd-child", pid_of(i, "smtpd-child"))
        with receiver.link("qmgr") as channel:
            def answer():
                while data := channel.recv(65536):
                    number, ident = struct.unpack_from("<HI", data)
                    if number == BY_NAME["rate_check"].number:
                        asked.append(texts(data, 6, 1)[0])
                        send(channel, struct.pack("<HIB", BY_NAME["rate_answer"].number, ident, 1))

            channel.settimeout(None)
            threading.Thread(target=answer, daemon=True).start()
            assert client.mail("s@example.test")[0] == 250 and client.rcpt("u1@example.test")[0] == 250
            channel.shutdown(socket.SHUT_RDWR)
    assert asked == [b"::", b"::"]
