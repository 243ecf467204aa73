"""Nothing heavy is imported before it is needed. Each command runs in a process of its own."""

import subprocess
import sys

import pytest
from apart import run_apart

from iti_llama.toolkit.foundation.package import ROOT


HEAVY = {"torch", "transformers", "sklearn", "matplotlib"}
COMMANDS = ["demo", "generate", "info", "fit", "sweep", "evaluate", "convert", "push", "verify", "dataset pairs"]


def imported_by(*arguments: str) -> set[str]:
    program = (
        "import sys\n"
        f"sys.argv = ['iti-llama', *{list(arguments)!r}]\n"
        "from iti_llama.toolkit.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stopped:\n    assert not stopped.code, stopped.code\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return set(run.stderr.split())


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_nothing_heavy(command):
    assert not imported_by(*command.split(), "--help") & HEAVY


def test_info_and_verify_need_no_torch():
    assert not imported_by("info", str(ROOT)) & HEAVY
    assert not imported_by("verify", str(ROOT)) & HEAVY


def test_push_imports_neither_scikit_learn_nor_matplotlib():
    program = "import sys, iti_llama.toolkit.repo.push\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not set(run.stdout.split()) & {"sklearn", "matplotlib"}


@pytest.mark.parametrize(
    "imports",
    [
        "import iti_llama\nfrom transformers import AutoModelForCausalLM",
        "from transformers import AutoModelForCausalLM\nimport iti_llama",
        "import iti_llama\nfrom transformers import LlamaForCausalLM, AutoModelForCausalLM",
        "import iti_llama\nfrom transformers import BertModel, AutoModelForCausalLM",
    ],
)
def test_the_auto_classes_know_iti_llama_in_any_order_of_imports(imports):
    program = f"{imports}\nmodel = AutoModelForCausalLM.from_pretrained({str(ROOT)!r})\nprint(type(model).__module__)"
    run = run_apart(program)
    assert run.stdout.strip() == "iti_llama.modeling_iti_llama", run.stderr
