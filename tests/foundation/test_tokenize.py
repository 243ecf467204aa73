"""Prompts become the tokens that generation sees, with one BOS, whoever wrote it."""

import pytest
import torch
from reference import tiny_tokenizer
from taught import TEMPLATE
from tokenizers import processors

from iti_llama.toolkit.foundation.complete import complete
from iti_llama.toolkit.foundation.tokenize import chat_prompt, completion_ids, prompt_ids


TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]


@pytest.fixture
def chatty():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def templated(tokenizer, messages) -> list[int]:
    found = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    return found[0] if isinstance(found[0], list) else found


def test_a_plain_prompt_gets_the_tokenizers_own_bos_and_a_completion_gets_none():
    tokenizer = tiny_tokenizer()
    assert prompt_ids(tokenizer, "ab") == [1, *completion_ids(tokenizer, "ab")]
    assert 1 not in completion_ids(tokenizer, "ab")


def test_a_tokenizer_that_ends_prompts_is_named_once(caplog):
    tokenizer = tiny_tokenizer()
    tokenizer.name_or_path = "ends/prompts"
    ends = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)])
    tokenizer.backend_tokenizer.post_processor = ends
    assert [prompt_ids(tokenizer, text)[-1] for text in ("ab", "cd")] == [2, 2]
    assert caplog.text.count("ends/prompts") == 1 and "add_eos_token" in caplog.text
    caplog.clear()
    for quiet in (tiny_tokenizer(), tokenizer):
        prompt_ids(quiet, "ab<eos>")
    assert not caplog.records


def test_a_templated_prompt_has_the_tokens_that_transformers_gives_it_with_one_bos(chatty):
    for messages in (TALK, [{"role": "user", "content": "hi"}]):
        ids = prompt_ids(chatty, chat_prompt(chatty, messages))
        assert ids == templated(chatty, messages)
        assert ids.count(chatty.bos_token_id) == 1


def test_a_template_without_bos_has_the_tokens_that_transformers_gives_it(chatty):
    chatty.chat_template = TEMPLATE.replace("{{ bos_token }}", "")
    assert prompt_ids(chatty, chat_prompt(chatty, TALK)) == templated(chatty, TALK)


def test_templated_prompts_are_completed_as_they_are_tokenized(steered, chatty):
    prompts = [chat_prompt(chatty, text) for text in ("hi", "what is x")]
    found = complete(steered, chatty, prompts, [1.5, 1.5], max_new_tokens=6)
    for prompt, text in zip(prompts, found, strict=True):
        ids = torch.tensor([templated(chatty, [{"role": "user", "content": prompt[len("<bos>[user]") : -12]}])])
        out = steered.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
        assert chatty.decode(out[0, ids.shape[1] :], skip_special_tokens=True) == text


def test_templated_and_plain_prompts_in_one_call_are_completed_as_alone(steered, chatty):
    prompts = [chat_prompt(chatty, "hi"), "def f(x):", "<eos>ab"]
    together = complete(steered, chatty, prompts, [0.0] * 3, max_new_tokens=8)
    assert together == [complete(steered, chatty, [p], [0.0], max_new_tokens=8)[0] for p in prompts]


def test_a_text_is_the_users_message_where_there_is_a_template_and_stays_where_there_is_none(chatty):
    assert chat_prompt(chatty, "hi") == "<bos>[user]hi\n[assistant]"
    assert chat_prompt(tiny_tokenizer(), "hi") == "hi"


def test_a_text_that_holds_special_tokens_already_stays_as_it_is(chatty):
    written = chat_prompt(chatty, "hi")
    assert chat_prompt(chatty, written) == written


def test_messages_without_a_template_are_refused_by_name():
    with pytest.raises(ValueError, match="d.jsonl, line 3: messages, but the base's tokenizer has no chat template"):
        chat_prompt(tiny_tokenizer(), TALK, "d.jsonl, line 3")


@pytest.mark.parametrize("template", ["{{ raise_exception('roles must alternate') }}", "{{ messages[7].content }}"])
def test_what_a_template_says_against_messages_is_named(chatty, template):
    chatty.chat_template = template
    with pytest.raises(ValueError, match="line 9: the chat template refuses the messages") as error:
        chat_prompt(chatty, TALK, "d.jsonl, line 9")
    assert "alternate" in str(error.value) or "undefined" in str(error.value) or "has no element" in str(error.value)


def test_a_raw_text_stays_as_it_is_and_a_system_message_goes_before_the_others(chatty):
    assert chat_prompt(chatty, "hi", raw=True) == "hi"
    assert chat_prompt(chatty, "hi", system="Be kind.") == "<bos>[system]Be kind.\n[user]hi\n[assistant]"
    assert chat_prompt(chatty, TALK, system="Be kind.") == chat_prompt(chatty, TALK)
    with pytest.raises(ValueError, match="prompt: messages need the chat template"):
        chat_prompt(chatty, TALK, raw=True)
    for tokenizer, text, raw in ((tiny_tokenizer(), "hi", False), (chatty, "hi", True), (chatty, "<bos>hi", False)):
        with pytest.raises(ValueError, match="prompt: a system message, but the template is not applied"):
            chat_prompt(tokenizer, text, system="Be kind.", raw=raw)


def test_messages_that_end_with_the_assistants_turn_are_no_prompt(chatty):
    with pytest.raises(ValueError, match="d.jsonl, line 2: the last message is the assistant's; expected the user's"):
        chat_prompt(chatty, [*TALK, {"role": "assistant", "content": "ho"}], "d.jsonl, line 2")


def test_a_tokenizer_may_have_several_templates():
    chatty = tiny_tokenizer()
    chatty.chat_template = {"default": TEMPLATE, "tool_use": TEMPLATE}
    alone = tiny_tokenizer()
    alone.chat_template = TEMPLATE
    assert prompt_ids(chatty, "return x") == prompt_ids(alone, "return x")
