"""Run Python that a model or a stranger wrote, where it can do no harm.

Each program runs in its own namespaces (no network, its own processes, a read-only root that holds the interpreter
and the system libraries and nothing of the user's), without privileges, under resource limits and a wall clock, with
capped output. A filter of system calls (seccomp) closes what namespaces and resource limits leave open: sockets to the
host of a virtual machine, memory that belongs to no process, namespaces of its own. The address space of all its
processes together is watched from outside: making a cgroup needs rights that most users do not have. It needs Linux
with util-linux (`unshare`, `setpriv`, `prlimit`). On construction `Sandbox()` proves that the walls stand, and refuses
otherwise, unless `allow_unsandboxed` is set.
"""

import contextlib
import functools
import itertools
import os
import platform
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path


START = """import os
if {filter!r}:
    import ctypes as _ctypes, struct as _struct
    _filter = _ctypes.create_string_buffer(bytes.fromhex({filter!r}))
    _program = _struct.pack("HxxxxxxQ", len({filter!r}) // 16, _ctypes.addressof(_filter))
    _call = lambda *numbers: _ctypes.CDLL(None).prctl(*(n if n is _program else _ctypes.c_ulong(n) for n in numbers))
    if _call(38, 1, 0, 0, 0) or _call(22, 2, _program, 0, 0):
        raise OSError("the kernel does not accept a filter of system calls (seccomp)")
    del _ctypes, _struct, _filter, _program, _call
os.write({fd}, b"1")
os.close({fd})
with open({path!r}, encoding="utf-8", errors="surrogatepass") as _file:
    _code = compile(_file.read(), {path!r}, "exec")
__file__ = {path!r}
del os, _file
exec(_code)
"""
"""Closes the system calls of `filter`, reports that the program starts, then becomes the program."""

STARTS = 3
"""How often the start of a program is tried before it counts as an error of the sandbox."""

START_SECONDS = 60.0
"""Seconds that a start may take on a busy machine; the program's clock runs from then on."""

ADVICE = "pass allow_unsandboxed (--allow-unsandboxed) to run programs that you trust under resource limits alone"

WATCH_SECONDS = 0.05
"""Seconds between two checks of what the processes of a run use."""

EPERM, ENOSYS, EAFNOSUPPORT = 1, 38, 97

NAMESPACES = 0x7E020080
"""The flags of `clone` that make namespaces."""

MACHINES = {
    "x86_64": (
        0xC000003E,
        {"socket": 41, "socketpair": 53, "clone": 56},
        {"shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240, "unshare": 272, "memfd_create": 319},
    ),
    "aarch64": (
        0xC00000B7,
        {"socket": 198, "socketpair": 199, "clone": 220},
        {"shmget": 194, "semget": 190, "msgget": 186, "mq_open": 180, "unshare": 97, "memfd_create": 279},
    ),
}
"""For each kind of machine: its number for seccomp, the calls that are decided by their first argument, and the calls
that are closed."""

CLOSED = {"io_uring_setup": 425, "clone3": 435, "memfd_secret": 447}
"""Further closed calls, whose number is the same everywhere. The filter cannot read the flags of `clone3`; without it
the C library uses `clone`."""

FAMILIES = (1, 2, 10)
"""The kinds of socket that are allowed: Unix, IPv4 and IPv6, which lead nowhere without a network."""


def system_call_filter(machine: str) -> bytes:
    """The filter program for seccomp, in the kernel's instructions of 8 bytes.

    Raises:
        SandboxError: for a machine whose calls are not known here.
    """
    if machine not in MACHINES:
        raise SandboxError(f"the sandbox knows the system calls of {', '.join(MACHINES)}, not of {machine}; {ADVICE}")
    number, decided, closed = MACHINES[machine]
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000

    def step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("HBBI", code, if_true, if_false, value)

    steps = [step(load, 4), step(equal, number, 1, 0), step(give, refuse | EPERM)]
    steps += [step(load, 0), step(at_least, 0x40000000, 0, 1), step(give, refuse | ENOSYS)]  # x32's numbers
    for call in (*closed.values(), *CLOSED.values()):
        steps += [step(equal, call, 0, 1), step(give, refuse | ENOSYS)]
    for call in (decided["socket"], decided["socketpair"]):
        allowed = [step(equal, family, len(FAMILIES) - at, 0) for at, family in enumerate(FAMILIES)]
        steps += [step(equal, call, 0, len(allowed) + 3), step(load, 16), *allowed]
        steps += [step(give, refuse | EAFNOSUPPORT), step(give, allow)]
    steps += [step(equal, decided["clone"], 0, 3), step(load, 16), step(any_bit, NAMESPACES, 0, 1)]
    return b"".join([*steps, step(give, refuse | EPERM), step(give, allow)])


TOOLS = ("unshare", "setpriv", "prlimit", "mount", "chroot")
FIRST_USER = 20_000
"""Where the process is root, runs get user ids from here on. Elsewhere each run has its own user namespace."""

_slots, _taken = threading.Lock(), set()


def _user_ids() -> int:
    """How many user ids this process may give out."""
    return sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines())


_look, _seen = threading.Lock(), (0.0, {})


def _processes() -> dict[int, list[tuple[int, int]]]:
    """The children of each process on this machine, as (process, bytes of address space). All threads share a scan."""
    global _seen
    with _look:
        if time.monotonic() - _seen[0] >= WATCH_SECONDS / 2:
            children: dict[int, list[tuple[int, int]]] = {}
            for name in filter(str.isdigit, os.listdir("/proc")):
                with contextlib.suppress(OSError):  # it has ended
                    fields = Path("/proc", name, "stat").read_bytes().rpartition(b")")[2].split()
                    children.setdefault(int(fields[1]), []).append((int(name), int(fields[20])))
            _seen = time.monotonic(), children
        return _seen[1]


def _address_space(pid: int) -> int:
    """Bytes of address space of all descendants of a process together. Reserved memory counts too, not only touched
    memory: shared pages belong to no process."""
    children, total, parents = _processes(), 0, [pid]
    while parents:
        for child, size in children.get(parents.pop(), ()):
            total += size
            parents.append(child)
    return total


# Arguments: the new root, the folder with the job, the prefix of the interpreter; then the command.
_BUILD_ROOT = """
set -e
root=$1 job=$2 prefix=$3
shift 3
mount -t tmpfs -o size=1m,mode=755 none "$root"
mkdir "$root/python" "$root/job" "$root/tmp" "$root/proc" "$root/dev"
for folder in usr lib lib32 lib64 bin; do
    if [ -L "/$folder" ]; then cp -P "/$folder" "$root/$folder"
    elif [ -d "/$folder" ]; then mkdir "$root/$folder"; mount --bind "/$folder" "$root/$folder"
        mount -o remount,bind,ro,nosuid "$root/$folder"; fi
done
mount --bind "$prefix" "$root/python"; mount -o remount,bind,ro,nosuid "$root/python"
mount --bind "$job" "$root/job"; mount -o remount,bind,ro,nosuid,nodev "$root/job"
for device in null zero urandom; do : > "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
mount -t proc -o nosuid,nodev,noexec none "$root/proc"
mount -t tmpfs -o size=16m,nr_inodes=1024,mode=1777,nosuid,nodev none "$root/tmp"
mount -o remount,bind,ro "$root"
cd "$root/tmp"
exec "$@"
"""

# Every attempt must fail. The program prints those that succeeded.
_PROOF = """
import os, socket
broken = []
try:
    socket.create_connection(("127.0.0.1", int(input())), timeout=1); broken.append("reached the network")
except OSError: pass
if os.path.exists(HOME) and os.listdir(HOME): broken.append("listed the home folder")
try:
    open("/usr/iti_llama_proof", "w"); broken.append("wrote outside")
except OSError: pass
try:
    socket.socket(40, socket.SOCK_STREAM); broken.append("made a socket to the host of a virtual machine")
except OSError: pass
try:
    os.memfd_create("x"); broken.append("made memory of no process")
except OSError: pass
try:
    os.kill(PARENT, 0); broken.append("saw the parent process")
except OSError: pass
print("broken: " + ", ".join(broken) if broken else "contained")
"""


class SandboxError(RuntimeError):
    """The sandbox cannot be built here, or does not hold."""


@dataclass(frozen=True)
class Limits:
    """What one program may use: seconds of wall clock and CPU; bytes of address space (of each of its processes, and
    of all together), of a file and of output."""

    seconds: float = 5.0
    memory: int = 1 << 30
    processes: int = 32
    output: int = 1 << 20
    file: int = 1 << 20


@dataclass(frozen=True)
class Run:
    """What a program did. `stopped` is empty, or says why it was killed: "time", "output" or "memory"."""

    stdout: str
    stderr: str
    returncode: int
    stopped: str = ""


class Sandbox:
    """Runs programs; safe to use from several threads.

    Args:
        limits: what each program may use.
        allow_unsandboxed: run under resource limits alone where namespaces cannot be had. Programs can then read the
            user's files and use the network: only for programs you trust.

    Raises:
        SandboxError: if the walls cannot be built or do not hold, and `allow_unsandboxed` is false.
    """

    def __init__(self, limits: Limits | None = None, allow_unsandboxed: bool = False):
        self.limits = limits or Limits()
        self.isolated = True
        try:
            self._prove()
        except SandboxError:
            if not allow_unsandboxed:
                raise
            self.isolated = False

    def prove(self) -> None:
        """Does nothing: construction has shown that the walls stand. See `LateSandbox`."""

    def run(self, program: str, stdin: str = "") -> Run:
        """Run a program's text to its end, or to its limits."""
        with tempfile.TemporaryDirectory(prefix="iti-sandbox-") as folder:
            job, root = Path(folder, "job"), Path(folder, "root")
            job.mkdir()
            root.mkdir()
            (job / "program.py").write_text(program, encoding="utf-8", errors="surrogatepass")
            inside = "/job/program.py" if self.isolated else str(job / "program.py")
            for path in (Path(folder), job, root):
                path.chmod(0o755)
            for _ in range(STARTS):
                ours, theirs = os.pipe()
                try:
                    calls = system_call_filter(platform.machine()).hex() if self.isolated else ""
                    (job / "start.py").write_text(START.format(fd=theirs, path=inside, filter=calls))
                    with self._own_user() as user:
                        run, started = self._supervise(self._command(job, root, user), stdin, folder, ours, theirs)
                finally:
                    os.close(ours)
                if started:
                    return run
        said = (run.stderr.strip().splitlines() or [run.stopped or f"exit code {run.returncode}"])[-1]
        failed = f"a program could not be started in the sandbox, {STARTS} times in a row ({said})"
        raise SandboxError(f"{failed}; {ADVICE}" if self.isolated else failed)

    def run_all(self, jobs: Iterable[tuple[str, str]], workers: int | None = None) -> list[Run]:
        """Run (program, stdin) pairs, as many at once as there are cores, and return the runs in their order."""
        pool = ThreadPoolExecutor(workers or os.cpu_count())
        try:
            return list(pool.map(lambda job: self.run(*job), jobs))
        finally:  # an interrupted call waits for the programs that run; the others never start
            pool.shutdown(cancel_futures=True)

    @contextlib.contextmanager
    def _own_user(self) -> Iterator[int]:
        """A user id that no other run has, in this process or another: limits on processes are counted by user."""
        with _slots:
            slot = next(number for number in itertools.count() if number not in _taken)
            _taken.add(slot)
        try:
            yield FIRST_USER + (os.getpid() * 256 + slot) % (_user_ids() - FIRST_USER - 1)
        finally:
            with _slots:
                _taken.discard(slot)

    def _command(self, job: Path, root: Path, user: int) -> list[str]:
        limits = self.limits
        rlimits = ["prlimit", f"--cpu={int(limits.seconds) + 1}", f"--as={limits.memory}", f"--fsize={limits.file}"]
        rlimits += [f"--nproc={limits.processes}", "--nofile=64", "--core=0", "--"]
        flags = ["-I", "-S", "-B", "-X", "utf8"]
        if not self.isolated:
            return rlimits + [sys.executable, *flags, str(job / "start.py")]
        is_root = os.geteuid() == 0
        executable = f"/python/bin/{Path(sys.executable).resolve().name}"
        unprivileged = ["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        if is_root:
            unprivileged += [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        return [
            *("unshare", *([] if is_root else ["--map-root-user"])),
            *("--net", "--pid", "--ipc", "--uts", "--mount", "--fork", "--kill-child", "--"),
            *("sh", "-c", _BUILD_ROOT, "sh", str(root), str(job), sys.base_prefix),
            *("chroot", str(root), *rlimits, *unprivileged),
            *(executable, *flags, "/job/start.py"),
        ]

    def _supervise(self, command: list[str], stdin: str, cwd: str, ours: int, theirs: int) -> tuple[Run, bool]:
        """Run a command. Returns what it did, and whether the program in it started."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/tmp", "TMPDIR": "/tmp"}
        with tempfile.TemporaryFile() as source:
            source.write(stdin.encode("utf-8", "surrogatepass"))
            source.seek(0)
            process = subprocess.Popen(
                command,
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd=cwd,
                start_new_session=True,
                pass_fds=(theirs,),
            )
        os.close(theirs)
        chunks, stopped, deadline = (
            {process.stdout: [], process.stderr: []},
            "",
            time.monotonic() + START_SECONDS,
        )
        started = False
        try:
            with selectors.DefaultSelector() as selector:
                for stream in (*chunks, ours):
                    selector.register(stream, selectors.EVENT_READ)
                while selector.get_map() and not stopped:
                    for key, _ in selector.select(min(WATCH_SECONDS, max(0.0, deadline - time.monotonic()))):
                        if key.fileobj == ours:
                            started = os.read(ours, 1) == b"1"
                            deadline = time.monotonic() + self.limits.seconds
                            selector.unregister(ours)
                            continue
                        data = os.read(key.fd, 1 << 16)
                        chunks[key.fileobj].append(data)
                        if not data:
                            selector.unregister(key.fileobj)
                    if sum(len(data) for stream in chunks.values() for data in stream) > self.limits.output:
                        stopped = "output"
                    else:
                        stopped = self._over(process.pid, deadline, started)
            while not stopped:  # the program has closed its output
                try:
                    process.wait(WATCH_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    stopped = self._over(process.pid, deadline, started)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
            process.stderr.close()
        stdout, stderr = (
            b"".join(stream)[: self.limits.output].decode("utf-8", "replace") for stream in chunks.values()
        )
        return Run(stdout, stderr, process.returncode, stopped), started

    def _over(self, pid: int, deadline: float, started: bool) -> str:
        """What a run has used too much of, "time" or "memory"; "" while it may go on."""
        if time.monotonic() >= deadline:
            return "time"
        return "memory" if started and _address_space(pid) > self.limits.memory else ""

    def _prove(self) -> None:
        missing = [tool for tool in TOOLS if shutil.which(tool, path="/usr/sbin:/usr/bin:/sbin:/bin") is None]
        if missing:
            raise SandboxError(f"the sandbox needs {', '.join(missing)} (util-linux, coreutils), missing here")
        import socket

        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            proof = _PROOF.replace("HOME", repr(str(Path.home()))).replace("PARENT", str(os.getpid()))
            run = self.run(proof, stdin=str(listener.getsockname()[1]))
        if run.stdout.strip() != "contained":
            said = run.stdout.strip() or (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1]
            raise SandboxError(f"the sandbox does not hold on this machine ({said}). Programs are not run; {ADVICE}")


class LateSandbox(Sandbox):
    """A `Sandbox` built when it is first needed, for work that may run no program at all. Raises as `Sandbox` does."""

    def __init__(self, limits: Limits | None = None, allow_unsandboxed: bool = False):
        self._wanted = {"limits": limits, "allow_unsandboxed": allow_unsandboxed}

    @functools.cached_property
    def built(self) -> Sandbox:
        return Sandbox(**self._wanted)

    def prove(self) -> None:
        self.built  # noqa: B018 (building it proves it)

    def run(self, program: str, stdin: str = "") -> Run:
        return self.built.run(program, stdin)

    def run_all(self, jobs: Iterable[tuple[str, str]], workers: int | None = None) -> list[Run]:
        return self.built.run_all(jobs, workers)
