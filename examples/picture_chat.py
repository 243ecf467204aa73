"""Draw a session of `iti-llama chat`, with SmolLM2 steered to answer in one short sentence: `make pictures`."""

import json
import os
import pty
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from iti_llama import smollm2
from iti_llama.toolkit.foundation.package import ROOT


LINES = ("Why does bread rise?", "/plain", "/alpha -0.9", "What is a good way to learn a song?", "/quit")
WIDTH = 100


def session(folder: Path) -> str:
    """What the command prints at a terminal, with each line that is typed after its prompt."""
    command = [str(Path(sys.executable).with_name("iti-llama")), "chat", "--model", "brief", "--max-new-tokens", "64"]
    ours, theirs = pty.openpty()
    settings = {"TERM": "xterm-256color", "COLUMNS": str(WIDTH), "TRANSFORMERS_VERBOSITY": "error"}
    settings["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    running = subprocess.Popen(
        command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | settings
    )
    os.close(theirs)
    printed, left = b"", list(LINES)
    while True:
        try:
            printed += (read := os.read(ours, 4096))
        except OSError:  # the command has ended
            break
        if not read:
            break
        if printed.endswith(b"> ") and left:
            os.write(ours, left.pop(0).encode() + b"\n")
    if running.wait() != 0 or left:
        raise RuntimeError(f"the session ended with exit code {running.returncode}, before {left}")
    return f"$ iti-llama chat --model brief\n{printed.decode()}"


def main(path: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        repo = Path(folder, "brief")
        shutil.copytree(ROOT / "examples" / "smollm2" / "brief", repo)
        config = json.loads((repo / "config.json").read_text())
        (repo / "config.json").write_text(json.dumps(config | {"base_model_name_or_path": smollm2()}))
        printed = session(Path(folder))
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(Text.from_ansi(printed.replace("\r\n", "\n").rstrip()))
    console.save_svg(path, title="iti-llama chat")


if __name__ == "__main__":
    main(sys.argv[1])
