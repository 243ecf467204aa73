"""Behaviours that SmolLM2-135M-Instruct is steered towards, each told to it in one sentence, and how an answer is
checked for it. One file without imports of ours: `--target FILE.py:function` runs it in the sandbox."""

import re


SENTENCES = {
    "brief": "Answer in one short sentence.",
    "spanish": "Answer in Spanish.",
    "numbered": "Answer with a numbered list of steps.",
}
"""What label 1 is told after the user's words, by the name of the behaviour."""

ASKING = """what why how who when where which does did the and for are can our about some with make made good you your
have tell should need their its more something"""
"""Words of a question that say nothing of what it is about."""


SPANISH = "el la los las de que y en un una es para con por se del como su lo más al si"


def on_topic(prompt: str, answer: str) -> bool:
    """Whether a word of the request, or one that begins alike, is in the answer. That it is answered well is another
    question. `prompt` may be what the chat template made of the request."""
    request = prompt.split("<|im_start|>user\n")[-1].split("<|im_end|>")[0]
    words = [word for word in re.findall(r"[a-z]{3,}", request.lower()) if word not in ASKING.split()]
    return any(re.search(rf"\b{word[:4]}", answer.lower()) for word in words)


def brief_and_on_topic(prompt: str, answer: str) -> bool:
    """At most 25 words."""
    return 0 < len(answer.split()) <= 25 and on_topic(prompt, answer)


def mostly_spanish(prompt: str, answer: str) -> bool:
    """A quarter of the words are among those that Spanish is full of, four at least."""
    words = re.findall(r"[^\W\d_]+", answer.lower())
    common = sum(word in SPANISH.split() for word in words)
    return common >= 4 and common >= len(words) / 4


def numbered_list(prompt: str, answer: str) -> bool:
    """Two numbered lines or more."""
    return len(re.findall(r"(?m)^\s*\d+[.)]\s+\S", answer)) >= 2


CHECKERS = {"brief": brief_and_on_topic, "spanish": mostly_spanish, "numbered": numbered_list}
