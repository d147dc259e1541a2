"""A self-contained instance of the suite for tests: own folder, ports, uids, certificate, users.

    with Instance(tmp_path, users={"u1@example.test": "pass"}) as i:
        smtplib.SMTP("127.0.0.1", i.port["smtp"]) ...

The programs are those of $BIN (default build/rel/bin). Ports and uid ranges come from a block that is locked for the
life of the object, so that parallel workers and other runs on the machine never meet; port["sink"] and port["dns"] (the
resolver that is asked) are left to the test. Works as root (own uids, chroots) and as an ordinary user. stop() fails the
test when a sanitizer spoke and, unless allow_deaths is set, when a daemon died or a process was left over.
"""
import itertools
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(os.environ.get("BIN", ROOT / "build/rel/bin"))
PORT_NAMES = ("smtp", "submission", "submissions", "imap", "imaps", "pop3", "pop3s", "lmtp", "sink", "dns")
FIRST_PORT, BLOCKS = 21000, 700
FIRST_UID, UIDS_A_BLOCK = 700000, 1000
# Front ends that few tests speak to: their first client starts them, since each costs some CPU at every start.
ON_DEMAND = ("submissions", "imaps", "pop3", "pop3s", "lmtp")
DAEMONS = ("qmgr", "pickup", "smtp-client", "local", "bounce", "maps", "nss", "dns", "auth", "broker", "imapd", "pop3d",
           "log")
# What ends a process that broke its jail runs within the call, whose signal is no interruption of anything.
TSAN = f"suppressions={ROOT}/tests/tsan.supp:report_signal_unsafe=0:"
SLOW = 4 if "asan" in str(BIN) or "tsan" in str(BIN) else 1  # sanitizers: everything takes longer


def _block():
    """The number of a block of ports that nobody uses: the lock is an abstract socket, which every user sees."""
    worker = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "0")) or 0)
    for n in itertools.islice(itertools.cycle(range(BLOCKS)), worker * 40, worker * 40 + BLOCKS):
        lock = socket.socket(socket.AF_UNIX)
        try:
            lock.bind(f"\0bulkhead-test-ports-{n}")
        except OSError:
            lock.close()
            continue
        if all(_free(FIRST_PORT + n * 10 + k) for k in range(10)):
            return n, lock
        lock.close()
    raise RuntimeError("no free block of ports")


def _free(port):
    for host in ("127.0.0.1", "0.0.0.0"):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind((host, port))
            except OSError:
                return False
    return True


def kill_all(pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def wait(true, seconds=10, what="it"):
    """What the function gives, as soon as that is true."""
    end = time.monotonic() + seconds * SLOW
    while time.monotonic() < end:
        value = true()
        if value:
            return value
        time.sleep(0.03)
    raise AssertionError(f"{what} did not come within {seconds * SLOW} s")


def queue_files(i):
    return sorted(p for d in (i.spool / "queue").iterdir() if len(d.name) == 1 for p in d.iterdir())


class Instance:
    def __init__(self, folder, main=None, users=None, services=None, aliases="", allow_deaths=False,
                 direct=True, override=None, all_running=False):
        """main: parameters added to main.cf. services: replaces the rows of the front ends. override: per front end,
        {"smtp": {"smtpd_timeout": "1s"}}. aliases: text of the instance's aliases file. all_running: none of the front ends
        waits for its first client."""
        self.folder = pathlib.Path(folder)
        self.main = dict(main or {})
        self.users = dict(users if users is not None else {"u1@example.test": "pass1"})
        self.services, self.aliases, self.override = services, aliases, override or {}
        self.extra_rows = []  # of master.cf
        self.on_demand = () if all_running else ON_DEMAND
        self.command = []  # a program and its arguments that starts master
        self.allow_deaths = allow_deaths
        self.faults = False  # the test sends signals that a sanitizer takes for a crash
        self.failed = False
        self.process = None
        self.direct = direct
        self.block, self._lock = _block()  # free again when this object has gone
        self.port = {name: FIRST_PORT + self.block * 10 + k for k, name in enumerate(PORT_NAMES)}
        self.uid_base = FIRST_UID + self.block * UIDS_A_BLOCK
        self.etc, self.log_file = self.folder / "etc", self.folder / "log" / "mail.log"
        self.mail, self.spool, self.run = self.folder / "mail", self.folder / "spool", self.folder / "run"
        self.data = self.folder / "data"
        self.write()

    # --- configuration ---

    def parameters(self):
        values = {
            "myhostname": "mx.example.test",
            "mydestination": "$myhostname, localhost",
            "virtual_mailbox_domains": "example.test",
            "mynetworks": "127.0.0.0/8 [::1]/128",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "daemon_directory": BIN,
            "queue_directory": self.spool,
            "data_directory": self.data,
            "run_directory": self.run,
            "virtual_mailbox_base": self.mail,
            "virtual_uid_base": self.uid_base + 200,
            "virtual_uid_count": 800,
            "alias_maps": f"hash:{self.etc}/aliases",
            "log_target": "file",
            "log_file": self.log_file,
            "dns_resolvers": f"127.0.0.1:{self.port['dns']}",  # nobody, unless the test runs a server there
            "dns_timeout": "1s",
            "dns_attempts": "1",
            "smtpd_peername_lookup": "no",
            "queue_minfree": "1M",
            "default_privs": "nobody",
            "smtp_tls_CAfile": self.etc / "authority.pem",  # those of the system take long to read
        }
        if os.geteuid() == 0:
            values["uid_base"] = self.uid_base
        if not self.direct:
            values["direct_delivery"] = "no"
        values.update(self.main)
        return values

    def front_ends(self):
        rows = (("smtp", "smtpd", {}),
                ("submission", "submission", {}),
                ("submissions", "submission", {"smtpd_tls_wrappermode": "yes"}),
                ("imap", "login", {"service_protocol": "imap"}),
                ("imaps", "login", {"service_protocol": "imap", "smtpd_tls_wrappermode": "yes"}),
                ("pop3", "login", {"service_protocol": "pop3"}),
                ("pop3s", "login", {"service_protocol": "pop3", "smtpd_tls_wrappermode": "yes"}),
                ("lmtp", "smtpd", {"service_protocol": "lmtp"}))
        out = []
        for name, program, options in rows:
            out.append(f"127.0.0.1:{self.port[name]} inet n - y - - {program}")
            if name in self.on_demand:
                options = {**options, "service_on_demand": "yes"}
            for key, value in {**options, **self.override.get(name, {})}.items():
                out.append(f"    -o {{ {key} = {value} }}")
        out.append("submit unix n - y - - submission")
        return out

    def write(self):
        for d in (self.folder, self.etc, self.log_file.parent, self.mail):
            d.mkdir(parents=True, exist_ok=True)
            d.chmod(0o755)
        parents = list(self.folder.parents)
        for d in parents:  # pytest's folders are 0700: a daemon with its own uid must get through
            if str(d).startswith("/tmp/") and d.stat().st_uid == os.geteuid() and len(d.parts) > 2:
                d.chmod(d.stat().st_mode | 0o711)
        (self.etc / "main.cf").write_text("".join(f"{k} = {v}\n" for k, v in self.parameters().items()))
        rows = self.services if self.services is not None else self.front_ends()
        rows = list(rows) + [f"{d} unix n - y - 1 {d}" for d in DAEMONS] + self.extra_rows
        (self.etc / "master.cf").write_text("\n".join(rows) + "\n")
        shutil.copy(ROOT / "tests/authority.pem", self.etc)
        if not (self.etc / "aliases").exists():
            (self.etc / "aliases").write_text(self.aliases or "postmaster: root\nroot: u1@example.test\n")

    def set(self, **values):
        """Changes main.cf; reload() puts it into force."""
        self.main.update({k: str(v) for k, v in values.items()})
        self.write()

    # --- the tool ---

    def tool(self, *words, input=None, check=True, program="bulkhead", timeout=120):
        done = subprocess.run([BIN / program, "-c", self.etc, *map(str, words)], input=input, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout * SLOW, check=False)
        if check and done.returncode:
            raise AssertionError(f"bulkhead {' '.join(map(str, words))}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def add_user(self, name, password, *options):
        self.users[name] = password
        return self.tool("user", "add", name, *options, input=password + "\n")

    def reload(self):
        return self.tool("reload")

    # --- life ---

    def start(self, wait=True):
        if not (self.data / "users.lmdb").exists():
            self.data.mkdir(exist_ok=True)
            for name, password in self.users.items():
                self.add_user(name, password)
        self.stderr = open(self.folder / "stderr", "ab")
        env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0:" + os.environ.get("ASAN_OPTIONS", ""),
               "TSAN_OPTIONS": TSAN + os.environ.get("TSAN_OPTIONS", "")}
        said = self.log_size()
        self.process = subprocess.Popen([*self.command, BIN / "master", "-c", self.etc, "-F"], stdout=self.stderr, stderr=self.stderr,
                                        stdin=subprocess.DEVNULL, env=env, start_new_session=True)
        if wait:
            self.wait_started(said)
            self.wait_ready()
        return self

    def log_size(self):
        return self.log_file.stat().st_size if self.log_file.exists() else 0

    def wait_started(self, said):
        """Until the log says so behind that offset: cheaper than to ask again and again. wait_ready has the last word."""
        end = time.monotonic() + 2 * SLOW
        while self.process.poll() is None and time.monotonic() < end:
            if self.log_size() > said:
                with open(self.log_file, "rb") as f:
                    f.seek(said)
                    if re.search(rb"\bstarted\b|cannot run", f.read()):
                        return
            time.sleep(0.01)

    def wait_ready(self, seconds=20):
        """Until every daemon is ready and every port answers."""
        end = time.monotonic() + seconds * SLOW
        done = None
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"master ended with {self.process.returncode}\n{self.tail()}")
            if (self.run / "control").exists():
                done = self.tool("status", check=False)
                if done.returncode == 0 and " starting" not in done.stdout:
                    break
                if "reason=\"cannot run" in self.log():
                    raise AssertionError("a program is missing\n" + self.tail())
            time.sleep(0.05)
        else:
            raise AssertionError(f"not ready after {seconds} s\n{done and done.stdout}{self.tail()}")
        for name in PORT_NAMES[:8]:
            if self.services is None and name not in self.on_demand:
                socket.create_connection(("127.0.0.1", self.port[name]), 5).close()

    def stop(self):
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(40 * SLOW)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                self.kill_leftovers()
                raise AssertionError("master did not stop\n" + self.tail()) from None
        status, self.process = self.process.returncode, None
        self.stderr.close()
        left = self.kill_leftovers()
        if not self.failed and not self.faults:
            self.check_sanitizers()
        if self.allow_deaths:
            return
        assert status == 0, f"master ended with {status}\n{self.tail()}"
        assert not left, f"left over: {left}\n{self.tail()}"
        self.check_health()

    def kill(self):
        """kill -9 of everything at once: what a crash of the machine does to processes."""
        if self.process:
            pids = [pid for pid, _ in self.processes()]
            kill_all([self.process.pid, *pids])
            self.process.wait()
            self.process = None
            self.stderr.close()
            wait(lambda: all(_free(self.port[name]) for name in PORT_NAMES[:8]), 20, "the end of its sockets")

    def check_sanitizers(self):
        text = (self.folder / "stderr").read_text(errors="replace")
        for mark in ("AddressSanitizer", "runtime error:", "ThreadSanitizer", "LeakSanitizer"):
            assert mark not in text, text[text.index(mark):][:4000]

    def check_health(self):
        self.check_sanitizers()
        text = (self.folder / "stderr").read_text(errors="replace")
        log = self.log()
        for mark in ("service-died", "child-died", "ipc-violation", "jail-"):
            bad = [line for line in log.splitlines() + text.splitlines() if f": {mark}" in line or f" {mark}" in line]
            assert not bad, "\n".join(bad[:20])

    def processes(self):
        """(pid, argv) of every process of this instance but master, children of zygotes included."""
        parents, argv = {}, {}
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                stat = (entry / "stat").read_text()
                argv[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
        mine = {pid for pid, words in argv.items() if any(w.startswith(str(self.folder) + "/") for w in words)
                and words[0].rpartition("/")[2] not in ("master", "bulkhead", "strace", "python3")}
        if self.process:
            mine |= {pid for pid, parent in parents.items() if parent == self.process.pid}
        while True:
            more = {pid for pid, parent in parents.items() if parent in mine} - mine
            if not more:
                break
            mine |= more
        return sorted((pid, argv[pid]) for pid in mine)

    def pids(self, program):
        return [pid for pid, argv in self.processes() if argv and argv[0].rpartition("/")[2] == program]

    def kill_program(self, program):
        """kill -9 of all its processes, those of a zygote included."""
        kill_all(self.pids(program))

    def kill_leftovers(self):
        left = self.processes()
        kill_all(pid for pid, _ in left)
        return left

    # --- what it wrote ---

    def log(self):
        try:
            return self.log_file.read_text(errors="replace")
        except OSError:
            return ""

    def tail(self, lines=40):
        err = (self.folder / "stderr").read_text(errors="replace").splitlines()
        return "\n".join(["--- stderr"] + err[-lines:] + ["--- log"] + self.log().splitlines()[-lines:])

    def wait_log(self, pattern, seconds=10, count=1):
        """The lines that match, as soon as there are so many."""
        found = []
        end = time.monotonic() + seconds * SLOW
        while time.monotonic() < end:
            found = [line for line in self.log().splitlines() if re.search(pattern, line)]
            if len(found) >= count:
                return found
            time.sleep(0.03)
        raise AssertionError(f"no line for {pattern!r} ({len(found)} of {count})\n{self.tail()}")

    def home(self, user):
        local, _, domain = user.partition("@")
        return self.mail / domain / local if domain else self.mail / local

    def messages(self, user, folder=""):
        """Bytes of each message in new/ and cur/ of the Maildir of a virtual user."""
        box = self.home(user) / "Maildir" / folder
        return [p.read_bytes() for d in ("new", "cur") if (box / d).is_dir() for p in sorted((box / d).iterdir())]

    def wait_messages(self, user, count=1, seconds=10, folder=""):
        end = time.monotonic() + seconds * SLOW
        while time.monotonic() < end:
            found = self.messages(user, folder)
            if len(found) >= count:
                return found
            time.sleep(0.03)
        raise AssertionError(f"{user} has {len(self.messages(user, folder))} of {count} messages\n{self.tail()}")

    def tls(self):
        """A client context that trusts this instance's self-made certificate; connect by the name localhost."""
        context = ssl.create_default_context(cafile=str(self.data / "self-made.pem"))
        return context

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.allow_deaths = self.failed = True
            self.stop()
            raise

    def __exit__(self, kind, *_):
        if kind:
            self.allow_deaths = self.failed = True  # the test's own failure is what counts
        self.stop()
