"""Where an instruction stands in what the model is given."""

import pytest
from reference import tiny_tokenizer
from taught import TEMPLATE

from iti_llama.toolkit.instruct.read_requests import Request
from iti_llama.toolkit.instruct.say_instruction import Prompts, places_of


@pytest.fixture
def chat():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return Prompts(tokenizer)


LATER = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
]


@pytest.mark.parametrize(
    "place,short,long",
    [
        ("system", "[system]say x\n[user]go\n", "[system]be kind\nsay x\n[user]one\n[assistant]two\n[user]three\n"),
        ("before", "[user]say x\n\ngo\n", "[system]be kind\n[user]one\n[assistant]two\n[user]say x\n\nthree\n"),
        ("after", "[user]go\n\nsay x\n", "[system]be kind\n[user]one\n[assistant]two\n[user]three\n\nsay x\n"),
    ],
)
def test_the_instruction_is_in_the_system_turn_or_beside_the_last_words(place, short, long, chat):
    told = [chat.told(Request(written, "g"), "say x", place).prompt for written in ("go", LATER)]
    assert told == [f"<bos>{text}[assistant]" for text in (short, long)]
    assert "say x" not in chat.bare(Request(LATER, "g")).prompt and LATER[-1]["content"] == "three"


def test_without_a_chat_template_it_is_a_comment_above_the_request():
    prompts = Prompts(tiny_tokenizer())
    assert places_of(prompts.tokenizer) == ("comment",)
    assert prompts.told(Request("def f(x):", "g"), "say x", "comment").prompt == "# say x\ndef f(x):"


def test_a_place_that_the_base_does_not_have_is_refused(chat):
    with pytest.raises(ValueError, match="--place is 'comment'; expected after, before, system"):
        chat.told(Request("go", "g"), "say x", "comment")
    with pytest.raises(ValueError, match="--place is 'system'; expected comment"):
        Prompts(tiny_tokenizer()).told(Request("go", "g"), "say x", "system")
