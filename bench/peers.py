"""What mail-probe and smtp-probe share: a control group that counts CPU time, a fresh disk, free ports."""
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import time

CPUACCT, UNIFIED = pathlib.Path("/sys/fs/cgroup/cpuacct"), pathlib.Path("/sys/fs/cgroup")
CLOCK = os.sysconf("SC_CLK_TCK")


class Group:
    """A control group that counts the CPU time of a server and all its children."""

    def __init__(self):
        self.v1 = CPUACCT.is_dir()
        self.path = (CPUACCT if self.v1 else UNIFIED) / f"bulkhead-bench-{os.getpid()}"
        self.path.mkdir(exist_ok=True)

    def enter(self):
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def cpu(self):
        if self.v1:
            return int((self.path / "cpuacct.usage").read_text()) / 1e9
        return int(re.search(r"usage_usec (\d+)", (self.path / "cpu.stat").read_text())[1]) / 1e6

    def pids(self):
        return [int(p) for p in (self.path / "cgroup.procs").read_text().split()]

    def cpu_of(self, name):
        """CPU seconds of the living processes of that name."""
        total = 0
        for pid in self.pids():
            try:
                head, _, rest = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")
            except OSError:
                continue
            if head.partition("(")[2].startswith(name):
                total += sum(map(int, rest.split()[11:15])) / CLOCK
        return total

    def pss(self):
        total = 0
        for pid in self.pids():
            try:
                total += int(re.search(r"Pss:\s+(\d+)", pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text())[1])
            except (OSError, TypeError):
                pass
        return total

    def close(self):
        for _ in range(100):
            try:
                self.path.rmdir()
                return
            except OSError:
                time.sleep(0.1)


class Disk:
    """A folder on a fresh loop-mounted ext4 with a journal, or a plain one."""

    def __init__(self, plain):
        self.top = pathlib.Path(tempfile.mkdtemp(prefix="bulkhead-bench-"))
        self.top.chmod(0o755)
        self.folder, self.mounted = self.top / "disk", False
        self.folder.mkdir()
        if not plain:
            image = self.top / "image"
            with open(image, "wb") as f:
                f.truncate(4 << 30)
            subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
            subprocess.run(["mount", "-o", "loop", image, self.folder], check=True)
            self.mounted = True
        self.folder.chmod(0o755)

    def close(self):
        if self.mounted:
            subprocess.run(["umount", self.folder], check=False)
        subprocess.run(["rm", "-rf", self.top], check=False)


def free_base():
    """A base port with ten free ports above it."""
    for base in range(31000, 60000, 20):
        try:
            for port in range(base, base + 12):
                with socket.socket() as s:
                    s.bind(("127.0.0.1", port))
            return base
        except OSError:
            continue
    raise SystemExit("no free ports")


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 0.3).close()
        return True
    except OSError:
        return False
