"""An authoritative name server (nsd) on loopback for one test, with the zones that it is given.

    with Nameserver(folder, port, {"x.test": "@ MX 10 mx\nmx A 127.0.0.1\n"}): ...
"""
import os
import pathlib
import shutil
import socket
import subprocess
import time

NSD = shutil.which("nsd") or "/usr/sbin/nsd"
HAVE = os.path.exists(NSD)

HEAD = "$TTL 60\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n"


class Nameserver:
    def __init__(self, folder, port, zones):
        self.folder, self.port = pathlib.Path(folder), port
        self.folder.mkdir(parents=True, exist_ok=True)
        text = [f"server:\n ip-address: 127.0.0.1\n port: {port}\n username: \"\"\n zonesdir: \"{self.folder}\"\n"
                f" database: \"\"\n pidfile: \"\"\n xfrdfile: \"\"\n zonelistfile: \"{self.folder}/list\"\n"
                f" cookie-secret-file: \"\"\n server-count: 1\nremote-control:\n control-enable: no\n"]
        for name, zone in zones.items():
            (self.folder / f"{name}.zone").write_text(f"$ORIGIN {name}.\n{HEAD}{zone}")
            text.append(f"zone:\n name: {name}\n zonefile: {name}.zone\n")
        (self.folder / "nsd.conf").write_text("".join(text))
        self.process = None

    def __enter__(self):
        self.output = open(self.folder / "output", "wb")
        self.process = subprocess.Popen([NSD, "-d", "-c", self.folder / "nsd.conf"], stdout=self.output,
                                        stderr=self.output)
        question = b"\1\2\1\0\0\1\0\0\0\0\0\0\0\0\6\0\1"  # the SOA of the root: refused, but answered
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.settimeout(0.2)
                try:
                    s.connect(("127.0.0.1", self.port))
                    s.send(question)
                    s.recv(512)
                    return self
                except OSError:
                    time.sleep(0.05)
        self.__exit__()
        raise AssertionError((self.folder / "output").read_text())

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.output.close()
