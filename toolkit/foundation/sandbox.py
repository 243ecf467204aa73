"""Run Python that a model or a stranger wrote, where it can do no harm.

Each program runs in its own namespaces (no network, its own processes, a read-only root that holds the interpreter
and the system libraries and nothing of the user's), without privileges, under resource limits and a wall clock, with
capped output. Linux with util-linux (`unshare`, `setpriv`, `prlimit`) is needed; `Sandbox()` proves on construction
that the walls stand and refuses otherwise, unless told `allow_unsandboxed`.
"""

import contextlib
import functools
import itertools
import os
import selectors
import shutil
import signal
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
os.write({fd}, b"1")
os.close({fd})
with open({path!r}, encoding="utf-8", errors="surrogatepass") as _file:
    _code = compile(_file.read(), {path!r}, "exec")
__file__ = {path!r}
del os, _file
exec(_code)
"""
"""Tells that the program starts, then is the program."""

STARTS = 3
"""Times that a program is tried to be started, before that is an error of the sandbox."""

START_SECONDS = 60.0
"""What a start may take on a busy machine; the program's own clock runs from then on."""

ADVICE = "pass allow_unsandboxed (--allow-unsandboxed) to run programs that you trust under resource limits alone"

TOOLS = ("unshare", "setpriv", "prlimit", "mount", "chroot")
FIRST_USER = 20_000
"""User ids from here on are lent to runs, where the process is root. Elsewhere each run has a user namespace of its
own."""

_slots, _taken = threading.Lock(), set()


def _user_ids() -> int:
    """How many user ids this process may give out."""
    return sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines())


# Arguments: root of the new world, folder with the job, prefix of the interpreter; then the command.
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
mount -t tmpfs -o size=16m,mode=1777,nosuid,nodev none "$root/tmp"
mount -o remount,bind,ro "$root"
cd "$root/tmp"
exec "$@"
"""

# Every attempt must fail. Prints what succeeded.
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
    os.kill(PARENT, 0); broken.append("saw the parent process")
except OSError: pass
print("broken: " + ", ".join(broken) if broken else "contained")
"""


class SandboxError(RuntimeError):
    """The sandbox cannot be built here, or does not hold."""


@dataclass(frozen=True)
class Limits:
    """What one program may use. Seconds of wall clock and CPU, bytes of address space, of a file and of output."""

    seconds: float = 5.0
    memory: int = 1 << 30
    processes: int = 32
    output: int = 1 << 20
    file: int = 1 << 20


@dataclass(frozen=True)
class Run:
    """What a program did. `stopped` is empty, or says why it was killed: "time" or "output"."""

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
        """Does nothing: that the walls stand was shown on construction. See `LateSandbox`."""

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
                    (job / "start.py").write_text(START.format(fd=theirs, path=inside))
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
        finally:  # of an interrupted call the programs that run are waited for, the others never start
            pool.shutdown(cancel_futures=True)

    @contextlib.contextmanager
    def _own_user(self) -> Iterator[int]:
        """A user id that no other run has, of this process or another: limits on processes are counted by user."""
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
        """Run a command; what it did, and whether the program in it started."""
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
                    for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
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
                    elif time.monotonic() >= deadline:
                        stopped = "time"
            if not stopped:
                try:
                    process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    stopped = "time"
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

    def _prove(self) -> None:
        missing = [tool for tool in TOOLS if shutil.which(tool, path="/usr/sbin:/usr/bin:/sbin:/bin") is None]
        if missing:
            raise SandboxError(f"the sandbox needs {', '.join(missing)} (util-linux, coreutils), not found here")
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
    """A `Sandbox` that is built when it is first needed, for work that may run no program at all. Raises as that."""

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
