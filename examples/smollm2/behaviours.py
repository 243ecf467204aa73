"""Behaviours that SmolLM2-135M-Instruct is steered towards, each told to it in one sentence, and how an answer is
checked for it. One file without imports of ours: `--target FILE.py:function` runs it in the sandbox."""

import re


SENTENCES = {
    "brief": "Answer in one short sentence.",
}
"""What label 1 is told after the user's words, by the name of the behaviour."""

ASKING = """what why how who when where which does did the and for are can our about some with make made good you your
have tell should need their its more something"""
"""Words of a question that say nothing of what it is about."""


def on_topic(prompt: str, answer: str) -> bool:
    """Whether a word of the request, or one that begins alike, is in the answer. That it is answered well is another
    question. `prompt` may be what the chat template made of the request."""
    request = prompt.split("<|im_start|>user\n")[-1].split("<|im_end|>")[0]
    words = [word for word in re.findall(r"[a-z]{3,}", request.lower()) if word not in ASKING.split()]
    return any(re.search(rf"\b{word[:4]}", answer.lower()) for word in words)


def brief_and_on_topic(prompt: str, answer: str) -> bool:
    """At most 25 words."""
    return 0 < len(answer.split()) <= 25 and on_topic(prompt, answer)


CHECKERS = {"brief": brief_and_on_topic}
