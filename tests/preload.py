"""Libraries of tests/ that daemons are started with (LD_PRELOAD), and the numbers that they share with the test.

    l = Library(folder, "failing_malloc", "FAIL_FILE")
    make_instance(main={"daemon_directory": l.programs("qmgr", "local")})
    l.set("qmgr", 0, 5)
"""
import mmap
import os
import pathlib
import shutil
import struct
import subprocess

from instance import BIN

HERE = pathlib.Path(__file__).parent
NUMBERS = 8


class Library:
    def __init__(self, folder, name, variable):
        """variable: of the environment; names the file of the numbers."""
        self.folder, self.variable, self.maps = folder, variable, {}
        self.library = folder / f"{name}.so"
        cc = os.environ.get("CC", "cc").split()
        subprocess.run([*cc, "-shared", "-fPIC", "-O2", "-D_GNU_SOURCE", "-o", self.library, HERE / f"{name}.c"], check=True)

    def programs(self, *roles):
        """A folder of all programs; those of the roles start with the library."""
        folder = self.folder / "bin"
        shutil.copytree(BIN, folder, symlinks=True)
        (self.folder / "real").mkdir()
        for role in roles:
            (folder / role).rename(self.folder / "real" / role)
            words = " ".join(f"{k}={v}" for k, v in self.environment(role).items())
            (folder / role).write_text(f'#!/bin/sh\n{words} exec {self.folder}/real/{role} "$@"\n')
            (folder / role).chmod(0o755)
        for d in (self.folder, folder, self.folder / "real"):
            d.chmod(0o755)
        return folder

    def environment(self, role):
        numbers = self.folder / f"{role}.numbers"
        if role not in self.maps:
            numbers.write_bytes(bytes(4 * NUMBERS))
            with open(numbers, "r+b") as f:
                self.maps[role] = mmap.mmap(f.fileno(), 4 * NUMBERS)
        return {"LD_PRELOAD": str(self.library), self.variable: str(numbers)}

    def get(self, role, n):
        return struct.unpack_from("i", self.maps[role], 4 * n)[0]

    def set(self, role, n, value):
        struct.pack_into("i", self.maps[role], 4 * n, value)


class Allocator(Library):
    """failing_malloc.c: the n-th allocation of a role is refused."""

    def __init__(self, folder):
        super().__init__(folder, "failing_malloc", "FAIL_FILE")

    def arm(self, role, n):
        self.set(role, 0, n)

    def left(self, role):
        return self.get(role, 0)

    def count(self, role):
        return self.get(role, 1)


class Shortener(Library):
    """short_writes.c: half of each write, or half of one and then an error."""

    HALF = 1
    CALLS = ("write", "pwrite", "writev", "pwritev", "sendfile", "copy_file_range")

    def __init__(self, folder):
        super().__init__(folder, "short_writes", "SHORT_FILE")

    def arm(self, mode, *roles, least=17):
        """mode: HALF, an errno, or 0. least: so many bytes and more; no record to an eventfd has them."""
        for role in roles or self.maps:
            self.set(role, 1, least)
            self.set(role, 0, mode)

    def cut(self, role):
        """{call: how often it was short}"""
        return {call: n for k, call in enumerate(self.CALLS, 2) if (n := self.get(role, k))}
