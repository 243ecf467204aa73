"""Programs in processes of their own. torch is imported already, since that takes longest; all else, with what it
reads of the environment, is as in a new interpreter."""

import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path


SERVER = """
import torch, torch._dynamo
import json, os, signal, sys, time, traceback


def begin(job, number, environment):
    if child := os.fork():
        return child
    code = 1
    try:
        files = os.open(job["stdin"], os.O_RDONLY), *(os.open(f"{job['out']}/{number}.{name}", 65) for name in (1, 2))
        for ours, file in enumerate(files):
            os.dup2(file, ours)
        os.chdir(job["cwd"])
        os.environ.clear()
        os.environ.update(environment)
        sys.argv[1:] = job["arguments"]
        exec(compile(job["script"], "<script>", "exec"), {"__name__": "__main__"})
        code = 0
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def end(child, deadline):
    while not (found := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(found[1])


for line in sys.stdin:
    job = json.loads(line)
    deadline = time.monotonic() + job["seconds"]
    children = [begin(job, *one) for one in enumerate(job["environments"])]
    print(json.dumps([end(child, deadline) for child in children]), flush=True)
"""
_servers = []


def _server() -> subprocess.Popen:
    if not _servers:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        _servers.append(subprocess.Popen([sys.executable, "-c", SERVER], env=environment, **pipes))
        atexit.register(_servers[0].kill)
    return _servers[0]


def _run(script: str, arguments, environments: list[dict], cwd=".", stdin=os.devnull, seconds=300.0) -> list:
    with tempfile.TemporaryDirectory() as out:
        job = {"script": textwrap.dedent(script), "arguments": list(map(str, arguments)), "seconds": seconds}
        job |= {"environments": environments, "cwd": os.path.abspath(cwd), "stdin": stdin, "out": out}
        print(json.dumps(job), file=_server().stdin, flush=True)
        found = []
        for number, code in enumerate(json.loads(_server().stdout.readline())):
            said = [Path(out, f"{number}.{name}").read_text() for name in (1, 2)]
            found.append(subprocess.CompletedProcess(arguments, code, *said))
        return found


def run_apart(script: str, *arguments, environment=None, **options) -> subprocess.CompletedProcess:
    """Run it to the end, or kill -9 after `seconds`. `cwd` and `stdin` (the name of a file) say where."""
    return _run(script, arguments, [os.environ | (environment or {})], **options)[0]


def run_in_two(script: str, *arguments) -> None:
    """Run it in two processes that know of each other, as `torchrun --nproc-per-node 2` would."""
    with contextlib.closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    both = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for run in _run(script, arguments, [both | {"RANK": rank, "LOCAL_RANK": rank} for rank in "01"]):
        assert run.returncode == 0, run.stderr[-3000:]
