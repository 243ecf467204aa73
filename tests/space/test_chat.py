"""The page of a chat model: a visitor's own words go through the template, with a system message if there is one."""

import shutil

import pytest
import torch
from reference import tiny_tokenizer
from taught import TEMPLATE

from iti_llama import ITILlamaForCausalLM
from iti_llama.toolkit.data.labelled_set import Example
from iti_llama.toolkit.fit.settings import FitSettings
from iti_llama.toolkit.foundation.tokenize import chat_prompt
from iti_llama.toolkit.repo.fit_repo import fit_repo
from iti_llama.toolkit.repo.settings import RepoSettings


pytest.importorskip("gradio", reason="gradio is not installed: make test-space")

from iti_llama.toolkit.space.build_page import page_of


@pytest.fixture(scope="module")
def chat(taught_dir, tmp_path_factory):
    """A page of a steered repo whose base has a chat template, its tokenizer, and the questions it was made from."""
    folder, tokenizer = tmp_path_factory.mktemp("chat"), tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    shutil.copytree(taught_dir, folder / "base")
    tokenizer.save_pretrained(folder / "base")
    questions = [f"f{number}?" for number in range(20)]
    examples = [
        Example(chat_prompt(tokenizer, asked), "yn"[label], label, asked, meta={"shown": asked})
        for asked in questions
        for label in (0, 1)
    ]
    fitting = FitSettings(top_k=2, folds=2, permutations=0)
    fit_repo(RepoSettings(folder / "base", fitting=fitting), examples, folder / "repo")
    model = ITILlamaForCausalLM.from_pretrained(folder / "repo")
    return page_of(str(folder / "repo"), model, tokenizer), tokenizer, questions


def test_it_opens_on_the_words_of_a_person(chat):
    page, _, questions = chat
    assert page.examples and set(page.examples) <= set(questions)
    assert page.from_link(None)[0] in questions and page.from_link(None)[4] == ""


@pytest.mark.parametrize("system", ["", "  ", "Be brief."])
def test_a_question_and_a_system_message_go_through_the_template(chat, system):
    page, tokenizer, questions = chat
    messages = [{"role": "system", "content": "Be brief."}] * bool(system.strip())
    messages += [{"role": "user", "content": questions[0]}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    *_, said = page.steered.answers(page.asked(questions[0], 1.0, "all", page.names, system))
    model = page.steered.model
    ids, model = torch.tensor([ids]), page.steered.model
    room = model.config.max_position_embeddings - ids.shape[1]
    alone = {"attention_mask": torch.ones_like(ids), "do_sample": False, "max_new_tokens": room}
    plain = model.generate(ids, iti_alpha=0.0, **alone)[0, ids.shape[1] :].tolist()
    ends = (place for place, token in enumerate(plain) if token in tokenizer.all_special_ids)
    assert list(said[1].ids) == plain[: next(ends, room)]
    *_, status, _ = list(page.show(questions[0], 1.0, "all", page.names, system))[-1]
    assert "scope all" in status


def test_a_model_without_a_template_takes_no_system_message(chat, monkeypatch):
    page, tokenizer, _ = chat
    monkeypatch.setattr(tokenizer, "chat_template", None)
    with pytest.raises(ValueError, match="no chat template"):
        page.asked("f1?", 1.0, "all", page.names, "Be brief.")


def test_a_repo_without_a_sweep_says_that_nothing_was_measured(chat):
    page, *_ = chat
    for alpha in (1.5, -1.01):
        with pytest.raises(ValueError, match=rf"is {alpha}; expected from -1 to 1, which was not measured"):
            page.asked("f1?", alpha, "all", page.names)
    assert page.asked("f1?", -1, "all", page.names).alpha == -1.0 and page.largest == 1.0
