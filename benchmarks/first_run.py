"""The first run of a new user: an empty environment, `pip install`, and one command from a labelled file to a repo on
a Hub. The Hub is the one on loopback that the tests use, the base is that of the bundled model, un-steered.

    python benchmarks/first_run.py [--markdown docs/getting-started.md]

Prints the commands, their output, and after each the seconds since the start. With `--markdown` it writes them into
that document too.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path


ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "examples")]

from hub import TOKEN, Hub, Repo  # noqa: E402
from make_labels import rows, snake_case  # noqa: E402

from iti_llama import ITILlamaConfig  # noqa: E402
from iti_llama.toolkit.data.labelled_set import write_examples  # noqa: E402
from iti_llama.toolkit.repo.card import replace_section  # noqa: E402


INSTALL = ["pip", "install", "-q", "torch==2.13.0", "."]
RUN = [
    *("iti-llama", "run", "snake_case.jsonl", "--base", "meta/demo", "--behaviour", "writes names in snake_case"),
    *("--policy", "fraction 0.5", "--self-contained", "--out", "snake", "--push", "me/snake"),
]


def plain_base() -> dict[str, bytes]:
    """The files of a repo with the bundled model's base, as a plain Llama."""
    config = ITILlamaConfig.from_pretrained(ROOT).to_llama(architectures=["LlamaForCausalLM"])
    names = ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
    return {name: (ROOT / name).read_bytes() for name in names} | {"config.json": config.to_json_string().encode()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", type=Path, help="document whose part `first-run` is replaced")
    markdown, printed = parser.parse_args().markdown, []

    def say(text: str) -> None:
        print(text, flush=True)
        printed.append(text)

    with tempfile.TemporaryDirectory() as folder, Hub() as hub:
        home = Path(folder)
        venv.create(home / "env", with_pip=True)
        write_examples(rows(snake_case), home / "snake_case.jsonl")
        hub.repos["meta/demo"] = Repo()
        hub.repos["meta/demo"].commit(plain_base())
        environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HOME": str(home / "hub")}
        environment |= {"HF_HUB_DISABLE_XET": "1"}  # the loopback Hub speaks LFS only
        environment |= {"PATH": f"{home / 'env' / 'bin'}:{os.environ['PATH']}", "COLUMNS": "80"}
        environment = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
        started = time.perf_counter()
        for command, place in ((INSTALL, ROOT), (RUN, home)):
            say("$ " + " ".join(f'"{word}"' if " " in word else word for word in command))
            found = subprocess.run(command, cwd=place, env=environment, text=True, capture_output=True)
            if found.returncode:
                sys.exit(found.stderr)
            if found.stdout.strip():
                say(found.stdout.strip())
            say(f"# {time.perf_counter() - started:.0f} s")
    if markdown is not None:
        replace_section(markdown, "first-run", "```\n" + "\n".join(printed) + "\n```")


if __name__ == "__main__":
    main()
