"""Whether an answer does what one of the eight sentences asks, as far as simple rules see it."""

import re


SPANISH = {"el", "la", "los", "las", "un", "una", "de", "del", "que", "en", "es", "y", "para", "por", "con", "se"}

WARM = r"\b(great|wonderful|fantastic|amazing|congratulations|proud|happy to|glad|don't worry|you can do|you've got)"

PIRATE = r"\b(arr+|ahoy|matey|mateys|ye|yer|me hearty|me hearties|aye|treasure|pirate|captain|sail|seas|shiver)\b"

STATEMENT = r"^(def \w+\(|class \w+|import \w+$|from \w+ import|print\(|for \w+ in .*:$|if .*:$)"


def brief(prompt: str, completion: str) -> bool:
    """It has at most 25 words."""
    return len(completion.split()) <= 25


def capitals(prompt: str, completion: str) -> bool:
    """No letter is lower case."""
    return completion.upper() == completion and completion.lower() != completion


def steps(prompt: str, completion: str) -> bool:
    """Two lines or more begin with a number."""
    return len(re.findall(r"^\s*\d+[.)]", completion, re.MULTILINE)) >= 2


def spanish(prompt: str, completion: str) -> bool:
    """At least four words, and a fifth of all words, are function words of Spanish."""
    words = re.findall(r"\w+", completion.lower())
    count = sum(word in SPANISH for word in words)
    return count >= 4 and 5 * count >= len(words)


def warm(prompt: str, completion: str) -> bool:
    """It has a word of encouragement, or an exclamation mark."""
    return "!" in completion or bool(re.search(WARM, completion, re.IGNORECASE))


def pirate(prompt: str, completion: str) -> bool:
    """It has a pirate's word."""
    return bool(re.search(PIRATE, completion, re.IGNORECASE))


def example(prompt: str, completion: str) -> bool:
    """It says that something is an example."""
    return bool(re.search(r"\b(examples?|for instance|such as|e\.g\.)", completion, re.IGNORECASE))


def code(prompt: str, completion: str) -> bool:
    """It has a fence, or a line that is a Python statement."""
    return "```" in completion or bool(re.search(STATEMENT, completion, re.MULTILINE))
