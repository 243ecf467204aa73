"""A conversation in the terminal: several turns, another strength, the plain answer beside it."""

import io
import shutil
import sys

import pytest
import torch
from reference import hooks, tiny_tokenizer
from taught import TEMPLATE
from transformers import LlamaForCausalLM

from iti_llama import ITIDirections
from iti_llama.toolkit.foundation import complete


@pytest.fixture(scope="module")
def repo(fitted_dir, tmp_path_factory):
    repo = shutil.copytree(fitted_dir, tmp_path_factory.mktemp("chat") / "repo")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(repo)
    return repo


@pytest.fixture
def talk(run, repo, monkeypatch):
    """A function: what `chat` prints after each line that is typed."""

    def call(*lines, options=()):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        code, out, err = run("chat", "--model", repo, "--max-new-tokens", 6, "--alpha", 8, *options)
        assert code == 0, err
        return [part.rstrip("\n") for part in out.split("> ")[1:]]

    return call


@pytest.fixture(scope="module")
def reference(fitted_dir, taught_dir):
    """The greedy answer to some messages of a plain Llama with hooks."""
    plain = LlamaForCausalLM.from_pretrained(taught_dir)
    directions = ITIDirections.load(fitted_dir / "iti_directions.safetensors")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE

    def answer(alpha: float, *turns: str, system: str | None = None) -> str:
        roles = ("user", "assistant") * len(turns)
        messages = [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=False)]
        messages = ([{"role": "system", "content": system}] if system else []) + messages
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with hooks(plain, directions, alpha), torch.no_grad():
            ids, mask = inputs["input_ids"], inputs["attention_mask"]
            out = plain.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False)
        return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)

    return answer


def test_each_answer_is_given_to_the_whole_conversation(talk, reference):
    first = reference(8.0, "f1")
    assert talk("f1", "f2", "/new", "f2")[:4] == [first, reference(8.0, "f1", first, "f2"), "", reference(8.0, "f2")]


def test_the_strength_is_changed_and_the_plain_answer_is_shown_beside_it_and_not_kept(talk, reference):
    strong, plain = reference(-8.0, "f1"), reference(0.0, "f1")
    assert strong != plain
    said = talk("/plain", "/alpha -8", "f1", "/plain", "f2")
    then = reference(-8.0, "f1", strong, "f2")
    assert said == ["there is no question yet", "alpha -8", *(text.rstrip("\n") for text in (strong, plain, then)), ""]


def test_the_system_message_is_that_of_the_option_or_of_the_command(talk, reference):
    said = talk("f1", "/new", "/system be long", "f1", options=("--system", "be brief"))
    assert said[0] == reference(8.0, "f1", system="be brief")
    assert said[2:4] == ["the system message is 'be long'", reference(8.0, "f1", system="be long")]


def test_what_cannot_be_said_leaves_the_conversation_as_it_is(talk, reference):
    said = talk("/alpha much", "/alpha nan", "/shout", "", "f " * 500, "f1", "/quit", "f2")
    assert "expected a finite number" in said[0] and "expected a finite number" in said[1]
    assert "/shout is unknown; expected /alpha" in said[2] and said[3] == ""
    assert "longer than the model's" in said[4].replace("\n", " ") and "/new starts over" in said[4].replace("\n", " ")
    assert said[5:] == [reference(8.0, "f1"), ""]


def test_a_stopped_answer_is_not_kept(talk, reference, monkeypatch):
    write, stops = complete.complete, iter([True, False])

    def stop_once(*args, **kwargs):
        if next(stops):
            raise KeyboardInterrupt
        return write(*args, **kwargs)

    monkeypatch.setattr(complete, "complete", stop_once)
    said = talk("f1", "f2")
    assert "stopped" in said[0] and said[1] == reference(8.0, "f2")


def test_a_model_without_a_chat_template_is_refused(run, fitted_dir):
    code, _, err = run("chat", "--model", fitted_dir)
    assert code == 2 and "its tokenizer has no chat template" in err
