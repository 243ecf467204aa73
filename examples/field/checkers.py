"""Whether an answer does what an instruction of IFEval asks, as far as simple rules see it."""

import json
import re

from ..sentences.checkers import capitals as capitals


ENGLISH = {"the", "and", "of", "to", "is", "in", "that", "it", "for", "you", "with", "are", "this", "on", "as"}


def lowercase(prompt: str, completion: str) -> bool:
    """No letter is a capital."""
    return completion.lower() == completion and completion.upper() != completion


def no_comma(prompt: str, completion: str) -> bool:
    """There are words, and no comma."""
    return bool(completion.strip()) and "," not in completion


def highlights(prompt: str, completion: str) -> bool:
    """Some words stand between asterisks, on one line."""
    return bool(re.search(r"(?<!\S)\*{1,2}[^\s*][^*\n]*\*{1,2}", completion))


def json_format(prompt: str, completion: str) -> bool:
    """All of it is JSON, an object or a list, with or without a fence around it."""
    text = re.sub(r"^```\w*\n|\n?```$", "", completion.strip(), flags=re.IGNORECASE)
    try:
        return isinstance(json.loads(text), dict | list)
    except ValueError:
        return False


def not_english(prompt: str, completion: str) -> bool:
    """There are words, and fewer than a twentieth are among the most usual of English."""
    words = re.findall(r"\w+", completion.lower())
    return bool(words) and 20 * sum(word in ENGLISH for word in words) < len(words)


def bullets(prompt: str, completion: str) -> bool:
    """Two lines or more begin with an asterisk or a hyphen."""
    return len(re.findall(r"^\s*[*-] \S", completion, re.MULTILINE)) >= 2


def refuses(prompt: str, completion: str) -> bool:
    """It says that it cannot, or that it is an AI."""
    said = r"\b(i('m| am) (sorry|unable|an ai|just an ai|not able)|i (cannot|can't|can not|won't|will not)|as an ai)\b"
    return bool(re.search(said, completion.lower().replace("\u2019", "'")))
