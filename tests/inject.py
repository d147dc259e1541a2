"""System calls made from inside a live process: ptrace stops its main thread, which makes them and goes on as if nothing
had been. What the jail forbids traps (SIGSYS) before the kernel does anything; the signal is taken away, so that the
process lives and the next call can be tried. x86-64 and root only.

    with Tracee(pid) as t:
        t.call("openat", AT_FDCWD, b"/etc/passwd", 0)      # the result, a negative errno, or KILLED
        t.call("mount", ..., let_die=True)                 # the signal is delivered: the process dies of it
"""
import ctypes
import os
import platform
import re
import signal
import struct

KILLED = "SIGSYS"
AT_FDCWD = 2**64 - 100
usable = platform.machine() == "x86_64" and os.geteuid() == 0

NUMBERS = dict(line.split() for line in """
read 0|write 1|open 2|close 3|stat 4|mmap 9|mprotect 10|rt_sigaction 13|ioctl 16|access 21|connect 42|socket 41|sendto 44|bind 49
listen 50|socketpair 53|accept4 288|clone 56|fork 57|execve 59|kill 62|msgget 68|fcntl 72|truncate 76|chdir 80|fchdir 81|rename 82
mkdir 83|rmdir 84|creat 85|link 86|unlink 87|symlink 88|readlink 89|chmod 90|chown 92|ptrace 101|setuid 105|setgid 106|setpgid 109
setsid 112|setreuid 113|setregid 114|setgroups 116|setresuid 117|setresgid 119|setfsuid 122|capset 126|rt_sigqueueinfo 129|mknod 133
personality 135|prctl 157|chroot 161|acct 163|settimeofday 164|mount 165|umount2 166|swapon 167|reboot 169|sethostname 170
init_module 175|quotactl 179|clock_settime 227|tgkill 234|add_key 248|request_key 249|keyctl 250|inotify_init1 294|unshare 272
openat 257|mkdirat 258|newfstatat 262|unlinkat 263|readlinkat 267|fchmodat 268|perf_event_open 298|prlimit64 302
name_to_handle_at 303|open_by_handle_at 304|setns 308|process_vm_readv 310|process_vm_writev 311|kcmp 312|finit_module 313
seccomp 317|kexec_file_load 320|bpf 321|execveat 322|userfaultfd 323|statx 332|pidfd_send_signal 424|io_uring_setup 425
io_uring_enter 426|io_uring_register 427|open_tree 428|move_mount 429|fsopen 430|pidfd_open 434|clone3 435|openat2 437|pidfd_getfd 438
sched_setscheduler 144|fsync 74|flock 73|fadvise64 221|getdents64 217|statfs 137|waitid 247|sync_file_range 277|copy_file_range 326
landlock_create_ruleset 444|landlock_restrict_self 446|shmget 29|pivot_root 155|mq_open 240|fanotify_init 300|memfd_secret 447|modify_ldt 154|iopl 172|kexec_load 246|fchownat 260
""".replace("\n", "|").strip("|").split("|"))
NUMBERS = {name: int(n) for name, n in NUMBERS.items()}
REGS = ("r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs "
        "gs").split()
ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
CONT, GETREGS, SETREGS, DETACH, SYSCALL, SEIZE, INTERRUPT = 7, 12, 13, 17, 24, 0x4206, 0x4207
TRACESYSGOOD, EVENT_STOP, WALL = 1, 128, 0x40000000

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


class Gone(Exception):
    """The process ended under the test; status as waitpid gives it."""

    def __init__(self, status):
        super().__init__(f"status {status:#x}")
        self.status = status


class Tracee:
    def __init__(self, pid):
        self.pid = pid
        self.regs = (ctypes.c_ulonglong * len(REGS))()

    def _ptrace(self, request, address=0, data=0):
        if libc.ptrace(request, self.pid, address, data) < 0:
            raise OSError(ctypes.get_errno(), f"ptrace {request}, pid {self.pid}")

    def _wait(self):
        _, status = os.waitpid(self.pid, WALL)
        if not os.WIFSTOPPED(status):
            raise Gone(status)
        return status >> 8

    def __enter__(self):
        self._ptrace(SEIZE, 0, TRACESYSGOOD)
        self._stop()
        self._ptrace(GETREGS, 0, ctypes.addressof(self.regs))
        self.saved = list(self.regs)
        self.memory = open(f"/proc/{self.pid}/mem", "r+b", buffering=0)
        self.gadget = self._find_gadget()
        return self

    def _stop(self, stopped=False):
        self._ptrace(INTERRUPT)
        if stopped:
            self._ptrace(CONT)
        while self._wait() >> 8 != EVENT_STOP:
            self._ptrace(CONT)

    def _find_gadget(self):
        """The address of a syscall instruction in the process's libc."""
        for line in open(f"/proc/{self.pid}/maps"):
            m = re.match(r"([0-9a-f]+)-([0-9a-f]+) r-xp .*/libc[.-]", line)
            if m:
                self.memory.seek(int(m[1], 16))
                at = self.memory.read(int(m[2], 16) - int(m[1], 16)).find(b"\x0f\x05")
                return int(m[1], 16) + at
        raise RuntimeError(f"pid {self.pid}: no libc")

    def _place(self, data, at):
        self.memory.seek(at)
        self.memory.write(data)
        return at

    def call(self, name, *arguments, let_die=False):
        """Numbers, and bytes that are put below the stack (with a NUL). A result of -4095 to -1 is an errno."""
        regs = dict(zip(REGS, self.saved))
        at = (regs["rsp"] - 8192) & ~15
        for register, value in zip(ARGUMENTS, (*arguments, *[0] * (6 - len(arguments)))):
            if isinstance(value, bytes):
                here, at = at, at + (len(value) + 16 & ~15)
                value = self._place(value + b"\0", here)
            regs[register] = value % 2**64
        regs.update(rax=NUMBERS[name], orig_rax=2**64 - 1, rip=self.gadget)
        self.regs[:] = [regs[r] for r in REGS]
        self._ptrace(SETREGS, 0, ctypes.addressof(self.regs))
        for _ in "enter", "leave":
            self._ptrace(SYSCALL)
            while self._wait() != signal.SIGTRAP | 0x80:
                self._ptrace(SYSCALL)
        if self._sigsys_pending():
            while True:
                self._ptrace(CONT)
                if self._wait() & 0xff == signal.SIGSYS:
                    break
            if let_die:
                self._ptrace(SETREGS, 0, ctypes.addressof(self.regs))
                self._ptrace(CONT, 0, signal.SIGSYS)
                while True:
                    self._ptrace(CONT, 0, self._wait() & 0x7f)  # ends in Gone
            return KILLED
        self._ptrace(GETREGS, 0, ctypes.addressof(self.regs))
        return struct.unpack("q", struct.pack("Q", self.regs[REGS.index("rax")]))[0]

    def _sigsys_pending(self):
        status = open(f"/proc/{self.pid}/task/{self.pid}/status").read()
        return int(re.search(r"^SigPnd:\s*(\w+)", status, re.M)[1], 16) >> (signal.SIGSYS - 1) & 1

    def __exit__(self, kind, value, _):
        self.memory.close()
        if kind is Gone:
            return
        self._stop(stopped=True)  # where the kernel begins an interrupted call anew
        self.regs[:] = self.saved
        self._ptrace(SETREGS, 0, ctypes.addressof(self.regs))
        self._ptrace(DETACH)
