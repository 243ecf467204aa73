"""Answers at the command line: greedy, sampled, and through a chat template."""

import io
import json
import shutil
import sys

import pytest
import torch
from reference import hooks, tiny_tokenizer
from rich.console import ColorSystem
from taught import TEMPLATE
from transformers import LlamaForCausalLM

from iti_llama import ITIDirections
from iti_llama.toolkit.cli.options import console
from iti_llama.toolkit.foundation import complete


PROMPT = "def f7(x):\n"


@pytest.fixture
def answers(run, fitted_dir):
    def call(*arguments, repo=fitted_dir, prompt=PROMPT):
        code, out, err = run(
            "generate", "--model", repo, "--prompt", prompt, "--max-new-tokens", 8, "--json", *arguments
        )
        assert code == 0, err
        return [(row["alpha"], row["completion"]) for row in json.loads(out)["completions"]]

    return call


@pytest.fixture(scope="module")
def plain_answer(fitted_dir, taught_dir):
    """The greedy answer of a plain Llama with hooks to what a tokenizer makes of a prompt."""
    plain, directions = (
        LlamaForCausalLM.from_pretrained(taught_dir),
        ITIDirections.load(fitted_dir / "iti_directions.safetensors"),
    )

    def answer(ids: list[int], alpha: float) -> str:
        fed = torch.tensor([ids])
        with hooks(plain, directions, alpha):
            out = plain.generate(fed, attention_mask=torch.ones_like(fed), max_new_tokens=8, do_sample=False)
        return tiny_tokenizer().decode(out[0, len(ids) :], skip_special_tokens=True)

    return answer


def test_a_greedy_answer_is_that_of_a_plain_llama_with_hooks(answers, plain_answer):
    ids = tiny_tokenizer()(PROMPT)["input_ids"]
    assert answers("--compare", "--alpha", 2) == [(alpha, plain_answer(ids, alpha)) for alpha in (0.0, 2.0)]
    assert answers() == [(1.0, plain_answer(ids, 1.0))]


def test_the_same_seed_samples_the_same_answers_and_another_seed_others(answers):
    sampled = ["--temperature", 3, "--samples", 4]
    first = answers(*sampled, "--seed", 1)
    assert first == answers(*sampled, "--seed", 1) != answers(*sampled, "--seed", 2)
    assert len(first) == 4 and len(set(first)) > 1
    assert [alpha for alpha, _ in answers(*sampled, "--compare")] == [0.0] * 4 + [1.0] * 4


def test_sampling_of_the_likeliest_token_alone_is_greedy(answers):
    (greedy,) = answers()
    assert answers("--temperature", 3, "--sample-top-k", 1, "--samples", 2) == [greedy] * 2
    assert answers("--top-p", 0.01, "--samples", 2) == [greedy] * 2


def test_several_greedy_answers_are_refused(run, fitted_dir):
    code, _, err = run("generate", "--model", fitted_dir, "--prompt", "a", "--samples", 3)
    assert code == 2 and "--samples is 3, but greedy answers are all the same; expected --temperature too" in err


@pytest.mark.parametrize("option", [("--temperature", 0), ("--top-p", 1.5), ("--sample-top-k", 0), ("--samples", 0)])
def test_sampling_out_of_range_is_refused(run, fitted_dir, option):
    code, _, err = run("generate", "--model", fitted_dir, "--prompt", "a", *option)
    assert code == 2 and option[0] in err and "Traceback" not in err


@pytest.fixture
def chatty(fitted_dir, tmp_path):
    """A repo whose tokenizer has a chat template."""
    repo = shutil.copytree(fitted_dir, tmp_path / "chatty")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(repo)
    return repo, tokenizer


def test_a_prompt_goes_through_the_chat_template_where_there_is_one(answers, plain_answer, chatty):
    repo, tokenizer = chatty
    talk = [{"role": "user", "content": PROMPT}]
    given = tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=True)["input_ids"]
    bare = tokenizer(PROMPT)["input_ids"]
    assert given[:2] != bare[:2] and given.count(1) == 1
    assert answers(repo=repo) == [(1.0, plain_answer(given, 1.0))]
    assert answers("--raw", repo=repo) == [(1.0, plain_answer(bare, 1.0))]
    assert answers(repo=repo, prompt=tokenizer.decode(given)) == [(1.0, plain_answer(given, 1.0))]


def test_a_system_message_comes_before_the_prompt(answers, plain_answer, chatty):
    repo, tokenizer = chatty
    talk = [{"role": "system", "content": "be brief"}, {"role": "user", "content": PROMPT}]
    given = tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert answers("--system", "be brief", "--alpha", 8, repo=repo) == [(8.0, plain_answer(given, 8.0))]


def test_a_system_message_without_a_template_is_refused(run, fitted_dir):
    code, _, err = run("generate", "--model", fitted_dir, "--prompt", "a", "--system", "be brief")
    assert code == 2 and "a system message, but the template is not applied" in err


def test_the_answer_of_a_chat_model_stands_alone_and_prompt_and_answers_are_told_apart(run, chatty, answers):
    repo, _ = chatty
    options = ["generate", "--model", repo, "--prompt", PROMPT, "--max-new-tokens", 8, "--alpha", 8]
    ((_, plain), (_, steered)) = answers("--compare", "--alpha", 8, repo=repo)
    assert plain != steered
    assert run(*options) == (0, f"{steered}\n", "")
    code, out, _ = run(*options, "--compare")
    lines = [line.strip("\N{BOX DRAWINGS LIGHT HORIZONTAL} ") for line in out.splitlines()]
    titles = [lines.index(title) for title in ("prompt", "plain, alpha 0", "steered, alpha 8")]
    texts = ["\n".join(out.splitlines()[a + 1 : b]) for a, b in zip(titles, [*titles[1:], None], strict=True)]
    assert code == 0 and [text.strip() for text in texts] == [PROMPT.strip(), plain.strip(), steered.strip()]


@pytest.fixture
def says(monkeypatch):
    """A function: whatever is asked from now on, this is the answer, word by word where it is streamed."""

    def say(*words: str | None):
        def complete_so(model, tokenizer, prompts, *args, streamer=None, **kwargs):
            given = prompts if words == (None,) else ["".join(words)] * len(prompts)
            if streamer is not None:
                for word in words[:-1]:
                    streamer.on_finalized_text(word)
                streamer.on_finalized_text(words[-1] or given[-1], stream_end=True)
            return given

        monkeypatch.setattr(complete, "complete", complete_so)

    return say


def test_a_prompt_of_a_file_is_read_without_its_byte_order_mark(run, monkeypatch, says, fitted_dir, tmp_path):
    says(None)
    path = tmp_path / "prompt.txt"
    arguments = ["generate", "--model", fitted_dir, "--prompt-file"]
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text("é", encoding)
        assert run(*arguments, path) == (0, "éé\n", "")
    monkeypatch.setattr(sys, "stdin", io.StringIO("\ufeffé"))
    assert run(*arguments, "-") == (0, "éé\n", "")
    path.write_text("é", "utf-16")
    code, _, err = run(*arguments, path)
    assert code == 2 and f"{path}: not UTF-8 at byte 0; expected a text in UTF-8" in err


@pytest.mark.parametrize("text", ["[x](y)[bold]", "ys[1:x:2]", "word " * 30 + "\tend", "a\rb"])
def test_prompt_and_answer_are_printed_as_they_are(run, says, fitted_dir, text):
    says(text[:1], text[1:])
    arguments = ["generate", "--model", fitted_dir, "--prompt", f"{text}="]
    assert run(*arguments) == (0, f"{text}={text}\n", "")
    code, out, _ = run(*arguments, "--compare")
    assert code == 0 and out.count(f"\n{text}\n") == 2 and out.count(f"\n{text}=\n") == 1
    assert run(*arguments, "--quiet") == (0, "", "")


def test_an_answer_is_bold_at_a_terminal(run, says, monkeypatch, fitted_dir):
    says("b")
    monkeypatch.setattr(console, "_color_system", ColorSystem.STANDARD)
    code, out, _ = run("generate", "--model", fitted_dir, "--prompt", "a")
    assert (code, out) == (0, "a\x1b[1mb\x1b[0m\n")
