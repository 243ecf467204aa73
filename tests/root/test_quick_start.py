"""The quick starts of README.md and of the cards, as a reader runs them: without the package, at a terminal. One that
stops to ask whether to run custom code has failed."""

import ast
import json
import os
import pty
import re
import subprocess
import textwrap

import pytest
import torch
from apart import run_apart
from reference import tiny_llama, tiny_tokenizer

from iti_llama import ITILlamaForCausalLM
from iti_llama.toolkit.data.labelled_set import Example
from iti_llama.toolkit.fit.settings import FitSettings
from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.repo.fit_repo import fit_repo
from iti_llama.toolkit.repo.settings import RepoSettings


def run_without_the_package(code: str, folder) -> subprocess.CompletedProcess:
    terminal, other_end = pty.openpty()
    code = "import sys; sys.modules['iti_llama'] = None\n" + code
    found = run_apart(code, environment={"HF_HUB_OFFLINE": "1"}, cwd=folder, stdin=os.ttyname(other_end))
    os.close(terminal), os.close(other_end)
    return found


def quick_start(card: str, folder, repo: str = ".") -> str:
    """What the quick start of a card that loads `repo` prints. The repo is in `folder`."""
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    block = next(block for block in blocks if f'repo = "{repo}"' in block)
    found = run_without_the_package(block.replace(f'repo = "{repo}"', 'repo = "."'), folder)
    assert found.returncode == 0, found.stderr
    assert "[y/N]" not in found.stdout + found.stderr
    return found.stdout


def test_the_readmes_quick_start_answers_steered_then_plain():
    answers = quick_start((ROOT / "README.md").read_text(), ROOT)
    steered, plain = answers.index("return n > 1 and all("), answers.index("for i in range(2, int(n ** 0.5) + 1):\n")
    assert steered < plain


def test_the_readmes_lines_for_the_hub_answer_steered():
    assert "return n > 1 and all(" in quick_start((ROOT / "README.md").read_text(), ROOT, "OWNER/NAME")


@pytest.mark.parametrize("chat", [False, True], ids=["text", "chat"])
def test_the_quick_start_of_a_card_runs_as_it_stands(chat, tmp_path):
    tiny_llama().save_pretrained(tmp_path / "base")
    tokenizer = tiny_tokenizer()
    if chat:
        tokenizer.chat_template = "{% for m in messages %}<bos>{{ m['content'] }}\n{% endfor %}"
    tokenizer.save_pretrained(tmp_path / "base")
    fields = tmp_path / "base" / "tokenizer_config.json"  # a Llama's tokenizer names its outputs
    inputs = {"model_input_names": ["input_ids", "attention_mask"]}
    fields.write_text(json.dumps(json.loads(fields.read_text()) | inputs))
    shown = [f"say {i}" for i in range(12)]
    examples = [
        Example(f"<bos>{text}\n" if chat else text, f" {label}" * 3, label, text, meta={"shown": text} if chat else {})
        for text in shown
        for label in (0, 1)
    ]
    settings = FitSettings(top_k=2, folds=2, permutations=0)
    made_of = RepoSettings(tmp_path / "base", fitting=settings, self_contained=True)
    fit_repo(made_of, examples, tmp_path / "repo")
    card = (tmp_path / "repo" / "README.md").read_text()
    assert ("apply_chat_template" in card) == chat
    prompt = ast.literal_eval(re.search(r"^prompt = (.*)$", card, re.MULTILINE)[1])
    assert prompt in shown
    model, tokenizer = ITILlamaForCausalLM.from_pretrained(tmp_path / "repo").eval(), tiny_tokenizer()
    ids = tokenizer(f"<bos>{prompt}\n", add_special_tokens=False) if chat else tokenizer(prompt)
    ids = torch.tensor([ids["input_ids"]])
    start = ids.shape[1] if chat else 0  # of a chat the answer alone is printed
    answer = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=100)[0, start:]
    printed = quick_start(card, tmp_path / "repo")
    assert printed == tokenizer.decode(answer, skip_special_tokens=True) + "\n" and (prompt in printed) != chat


def test_with_the_package_imported_no_remote_code_is_asked_for():
    """As the cards say it."""
    code = """
        del sys.modules["iti_llama"]
        import iti_llama
        from transformers import AutoModelForCausalLM, AutoTokenizer
        model, tokenizer = AutoModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")
        assert type(model) is iti_llama.ITILlamaForCausalLM and model.iti_alpha > 0
    """
    found = run_without_the_package(textwrap.dedent(code), ROOT)
    assert found.returncode == 0 and "[y/N]" not in found.stdout + found.stderr, found.stderr


@pytest.mark.parametrize("first", ["modeling_iti_llama", "generation_iti_llama", "toolkit.fit.record_activations"])
def test_any_module_may_be_imported_first_and_the_auto_classes_know_the_model(first):
    script = """
        import importlib, sys
        importlib.import_module(f"iti_llama.{sys.argv[1]}")
        from transformers import AutoModelForCausalLM
        import iti_llama
        assert type(AutoModelForCausalLM.from_pretrained(sys.argv[2])) is iti_llama.ITILlamaForCausalLM
    """
    result = run_apart(script, first, ROOT)
    assert result.returncode == 0, result.stderr
