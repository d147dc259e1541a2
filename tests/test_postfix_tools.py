"""Postfix's own test programs against a running suite: smtp-source sends, smtp-sink takes. `./bootstrap test` unpacks them."""
import os
import pathlib
import re
import socket
import subprocess
import time

import pytest

from instance import ROOT, SLOW
from test_lmtp import queue_empty

UNPACKED = ROOT / "build" / "postfix"
PLACES = ((UNPACKED / "usr/sbin", {**os.environ, "LD_LIBRARY_PATH": str(UNPACKED / "usr/lib/postfix")}),
          (pathlib.Path("/usr/sbin"), dict(os.environ)))
FOUND = [(folder, env) for folder, env in PLACES if (folder / "smtp-source").exists()]
pytestmark = pytest.mark.skipif(not FOUND, reason="no smtp-source and smtp-sink: ./bootstrap test unpacks them")


def run(name, *words, **options):
    folder, env = FOUND[0]
    return subprocess.Popen([folder / name, *map(str, words)], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            **options)


def source(*words):
    p = run("smtp-source", *words)
    out = p.communicate(timeout=120 * SLOW)[0]
    assert p.returncode == 0 and not out, out


class PostfixSink:
    """smtp-sink, which writes each message into a file of folder."""

    def __init__(self, port, folder, *options):
        folder.mkdir()
        folder.chmod(0o777)
        self.folder = folder
        if os.geteuid() == 0:
            options = (*options, "-u", "nobody")
        self.process = run("smtp-sink", *options, "-d", "%H%M%S.", f"127.0.0.1:{port}", 100, cwd=folder)
        end = time.monotonic() + 30 * SLOW
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 5).close()
                return
            except OSError:
                assert self.process.poll() is None, self.process.stdout.read()
                assert time.monotonic() < end
                time.sleep(0.02)

    def wait(self, count, ends=b"\n"):
        end = time.monotonic() + 60 * SLOW
        while time.monotonic() < end:
            found = [text for text in (p.read_bytes() for p in self.folder.iterdir()) if b"\nX-Mail-Args: " in text]
            if len(found) >= count and all(text.endswith(ends) for text in found):
                return found
            time.sleep(0.05)
        raise AssertionError(f"{len(found)} of {count} messages came")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.communicate()


@pytest.mark.parametrize("port,words", (("smtp", ()), ("lmtp", ("-L",))))
@pytest.mark.parametrize("size", (1000, 70000))
def test_smtp_source_delivers(instance, port, words, size):
    """Both carriers: in the record, and in a file."""
    source(*words, "-s", 4, "-m", 40, "-l", size, "-f", "a@far.test", "-t", "u1@example.test", "-S", "from the source",
           f"127.0.0.1:{instance.port[port]}")
    messages = instance.wait_messages("u1@example.test", 40)
    assert len(messages) == 40
    ids = [re.search(rb"^Message-Id: *(\S+)", m, re.M | re.I)[1] for m in messages]
    assert len(set(ids)) == 40 and all(b"Subject: from the source" in m and len(m) + m.count(b"\n") >= size for m in messages)


@pytest.mark.parametrize("options", ((), ("-p",), ("-8",), ("-e",)), ids=("esmtp", "no-pipelining", "no-8bitmime", "no-esmtp"))
def test_relay_to_smtp_sink(make_instance, tmp_path, options):
    i = make_instance(start=False)
    i.set(relayhost=f"[127.0.0.1]:{i.port['sink']}")
    i.start()
    with PostfixSink(i.port["sink"], tmp_path / "taken", *options) as sink:
        source("-s", 3, "-m", 30, "-l", 5000, "-f", "a@near.test", "-t", "x@far.test", "-S", "through us",
               f"127.0.0.1:{i.port['smtp']}")
        messages = sink.wait(30)
        assert len(messages) == 30 and all(b"Subject: through us" in m and b"X-Rcpt-Args: <x@far.test>" in m
                                           and b"X-Mail-Args: <a@near.test>" in m for m in messages)
    i.wait_log(r" delivery .*to=<x@far.test> status=sent", count=30, seconds=30)
    queue_empty(i)
