"""What a program in the sandbox cannot do."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from iti_llama.toolkit.foundation import sandbox as module
from iti_llama.toolkit.foundation.sandbox import Limits, Sandbox, SandboxError


@pytest.fixture(scope="module")
def sandbox():
    try:
        return Sandbox(Limits(seconds=3))
    except SandboxError as error:
        pytest.skip(f"no sandbox on this machine: {error}")


def test_runs_a_program_and_returns_what_it_said(sandbox):
    run = sandbox.run("import sys\nprint(input()[::-1])\nsys.exit(3)", stdin="abc")
    assert (run.stdout, run.returncode, run.stopped) == ("cba\n", 3, "")


def test_keeps_the_order_of_many_programs(sandbox):
    runs = sandbox.run_all((f"print({i})", "") for i in range(8))
    assert [run.stdout for run in runs] == [f"{i}\n" for i in range(8)]


def test_an_interrupted_call_starts_no_more_programs(sandbox, monkeypatch):
    ran, run = [], sandbox.run

    def counted(program, stdin=""):
        ran.append(program)
        return run(program, stdin)

    def jobs():
        yield from (("import time\ntime.sleep(0.2)", "") for _ in range(40))
        raise KeyboardInterrupt

    monkeypatch.setattr(sandbox, "run", counted)
    with pytest.raises(KeyboardInterrupt):
        sandbox.run_all(jobs(), workers=2)
    assert len(ran) < 10


def test_has_the_standard_library(sandbox):
    assert sandbox.run("import math, itertools, collections, heapq, json, re\nprint(math.gcd(8, 12))").stdout == "4\n"


def test_endless_sleep_ends_at_the_wall_clock(sandbox):
    start = time.monotonic()
    assert sandbox.run("import time\ntime.sleep(60)").stopped == "time"
    assert time.monotonic() - start < 10


def test_a_closed_output_does_not_hide_a_sleeper(sandbox):
    run = sandbox.run("import os, time\nos.close(1); os.close(2)\ntime.sleep(60)")
    assert run.stopped == "time"


def test_children_die_with_the_program(sandbox):
    mark = "iti_sandbox_orphan"
    program = f"""
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        {mark} = 1
        time.sleep(60)
print("done")
"""
    start = time.monotonic()
    sandbox.run(program)
    assert time.monotonic() - start < 10
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            assert "/job/program.py" not in Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            continue


def test_fork_bomb_is_held(sandbox):
    start = time.monotonic()
    sandbox.run("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass")
    assert time.monotonic() - start < 10
    assert sandbox.run("print(1)").stdout == "1\n"


def test_memory_bomb_is_held(sandbox):
    run = sandbox.run("x = bytearray(8 << 30)\nprint('got it')")
    assert "got it" not in run.stdout
    assert "MemoryError" in run.stderr


FOUR = """
import os, time
from mmap import mmap
for _ in range(4):
    if os.fork() == 0:
        kept = {take}
        time.sleep(20)
time.sleep(20)
"""


@pytest.mark.parametrize("take", ["bytearray(850 << 20)", "mmap(-1, 850 << 20)"])
def test_children_share_the_memory_of_one_program(sandbox, take):
    """Each of the four stays inside its own limit. Touched or only mapped, private or shared: it is counted."""
    assert sandbox.run(FOUR.format(take=take)).stopped == "memory"


def test_a_program_that_has_closed_its_output_is_watched_too(sandbox):
    take = "import os, time\nos.close(1); os.close(2)\nif os.fork() == 0: x = bytearray(700 << 20); time.sleep(9)\n"
    assert sandbox.run(take + "x = bytearray(700 << 20)\ntime.sleep(9)").stopped == "memory"


@pytest.mark.parametrize(
    "call",
    ["shmget(0, 1 << 20, 0o1600)", "msgget(0, 0o1600)", "semget(0, 1, 0o1600)", "memfd_create(b'x', 0)"]
    + ["mq_open(b'/x', 0o102, 0o600, None)", "unshare(0x10000000)", "syscall(435, None, 0)", "syscall(425, 8, None)"],
)
def test_memory_of_no_process_and_namespaces_cannot_be_made(sandbox, call):
    run = sandbox.run(
        f"import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nprint(libc.{call}, ctypes.get_errno())"
    )
    assert run.stdout == "-1 38\n"


def test_sockets_are_made_that_lead_nowhere_and_no_others(sandbox):
    """AF_VSOCK, 40, reaches the host of a virtual machine, whatever the network's namespace."""
    program = """
import socket
for family in range(1, 46):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            socket.socket(family, kind)
            print(family)
        except OSError:
            pass
socket.socketpair()
"""
    run = sandbox.run(program)
    assert set(run.stdout.split()) == {"1", "2", "10"} and run.returncode == 0, run.stderr


def test_threads_and_other_programs_run_beside_the_filter(sandbox):
    program = "import subprocess, threading\nt = threading.Thread(target=print, args=(1,))\nt.start()\nt.join()\n"
    assert sandbox.run(program + "print(subprocess.check_output(['echo', '2']))").stdout == "1\nb'2\\n'\n"


def test_a_machine_whose_calls_are_not_known_runs_nothing(monkeypatch):
    monkeypatch.setattr(module.platform, "machine", lambda: "riscv64")
    with pytest.raises(SandboxError, match="x86_64, aarch64, not of riscv64; pass allow_unsandboxed"):
        Sandbox()


def test_the_number_of_files_is_held(sandbox):
    program = "import os\nfor n in range(5000):\n    os.mkdir(f'/tmp/{n}')\n    print(n)"
    run = sandbox.run(program)
    assert "No space left" in run.stderr and 500 < int(run.stdout.split()[-1]) < 2000


def test_endless_output_is_cut(sandbox):
    run = sandbox.run("while True: print('x' * 10000)")
    assert run.stopped == "output"
    assert len(run.stdout) <= sandbox.limits.output


def test_no_network(sandbox):
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        run = sandbox.run(
            f"import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=1)\nprint('reached')"
        )
    assert "reached" not in run.stdout


def test_the_home_folder_cannot_be_read(sandbox, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    secret.chmod(0o644)
    program = (
        f"import os\nprint(os.path.exists({str(Path.home())!r}) and "
        f"os.listdir({str(Path.home())!r}))\nprint(open({str(secret)!r}).read())"
    )
    run = sandbox.run(program)
    assert "s3cret" not in run.stdout
    assert run.stdout.strip() in ("False", "[]", "")


def test_the_environment_is_not_passed_on(sandbox, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert "hf_secret" not in sandbox.run("import os\nprint(os.environ)").stdout


def test_the_parent_cannot_be_seen_or_killed(sandbox):
    run = sandbox.run(f"import os, signal\nos.kill({os.getpid()}, signal.SIGTERM)\nprint('killed')")
    assert "killed" not in run.stdout


def test_nothing_is_written_outside(sandbox, tmp_path):
    tmp_path.chmod(0o777)
    for path in (tmp_path / "x", "/usr/x", "/job/x", "/x", "/dev/shm/x"):
        run = sandbox.run(f"open({str(path)!r}, 'w').write('x')\nprint('wrote')")
        assert "wrote" not in run.stdout, path
    own = f"/tmp/iti-sandbox-test-{os.getpid()}"
    assert sandbox.run(f"open({own!r}, 'w').write('x')\nprint(open({own!r}).read())").stdout == "x\n"
    assert not Path(own).exists()


def test_a_large_file_is_refused(sandbox):
    assert "wrote" not in sandbox.run("open('/tmp/x', 'wb').write(b'x' * (8 << 20))\nprint('wrote')").stdout


def test_no_privileges(sandbox):
    run = sandbox.run("import os\nprint(os.getuid() != 0 or open('/proc/self/status').read())")
    assert run.stdout.startswith("True") or "CapEff:\t0000000000000000" in run.stdout


def test_refuses_where_the_walls_cannot_be_built_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr(module, "TOOLS", ("unshare", "no-such-tool"))
    with pytest.raises(SandboxError, match="no-such-tool"):
        Sandbox()
    loose = Sandbox(Limits(seconds=2), allow_unsandboxed=True)
    assert not loose.isolated
    assert loose.run("print(1)").stdout == "1\n"
    assert loose.run("while True: pass").stopped == "time"


FORKING = "import os, time\nfor _ in range(300):\n    try:\n        if os.fork() == 0:\n            time.sleep(4)\n            os._exit(0)\n    except OSError:\n        time.sleep(0.01)\n"  # fmt: skip  # noqa: E501


def test_forty_at_a_time_beside_one_that_forks_are_all_right(sandbox):
    jobs = [("import subprocess\nprint(sum(map(int, input().split())))", f"{n} {n}") for n in range(40)]
    runs = sandbox.run_all([(FORKING, ""), *jobs, (FORKING, "")], workers=42)
    assert [run.stdout.strip() for run in runs[1:-1]] == [str(2 * n) for n in range(40)]
    assert {(run.returncode, run.stopped) for run in runs[1:-1]} == {(0, "")}


def test_a_program_that_cannot_be_started_is_an_error_of_the_sandbox(sandbox):
    tight = Sandbox(Limits(seconds=5))
    object.__setattr__(tight.limits, "memory", 1 << 20)  # too little for the interpreter
    with pytest.raises(SandboxError, match=r"could not be started .*\(.+\); pass .*--allow-unsandboxed"):
        tight.run("print(1)")


AS_ANOTHER = r"""
import sys
sys.path.insert(0, sys.argv[1])
from sandbox import Limits, Sandbox
sandbox = Sandbox(Limits(seconds=5))
for path in ("/tmp/x", "/x", "/job/x", "/usr/x"):
    run = sandbox.run(f"open({path!r}, 'w').write('x')\nprint('wrote')")
    print(path, run.stdout.strip() or run.stderr.strip().splitlines()[-1].split(":")[0])
"""


@pytest.fixture
def another():
    """How a command is begun as a user who is not root and has namespaces, and an interpreter which that user can
    run."""
    if os.geteuid() != 0:
        pytest.skip("not root: the other tests of this file are those of a user who is not")
    begin = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"]
    if subprocess.run([*begin, "unshare", "--map-root-user", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("users who are not root have no namespaces on this machine")
    for python in (sys.executable, "/usr/bin/python3"):
        if shutil.which(python) and not subprocess.run([*begin, "test", "-x", os.path.realpath(python)]).returncode:
            return [*begin, python]
    pytest.skip("no Python that another user can run")


def test_a_user_who_is_not_root_has_the_same_walls(another):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        shutil.copy(module.__file__, folder)
        command = [*another, "-B", "-c", AS_ANOTHER, folder]
        found = subprocess.run(
            command, capture_output=True, text=True, env={"HOME": folder, "PATH": os.environ["PATH"]}
        )
    assert found.stderr == ""
    assert found.stdout.splitlines() == ["/tmp/x wrote", "/x OSError", "/job/x OSError", "/usr/x OSError"]


def test_dataclasses_and_main_are_as_in_a_script(sandbox):
    program = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n"
    )
    program += "if __name__ == '__main__':\n    import sys\n    print(A(3), len(sys.argv), __file__)\n"
    assert sandbox.run(program).stdout == "A(x=3) 1 /job/program.py\n"
