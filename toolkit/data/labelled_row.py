"""Turn one row of a labelled file into labelled texts, in the forms that people use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .written_prompt import check_messages


PROMPTS = ("prompt", "question", "messages")

PAIRS = (
    ("positive", "negative"),
    ("positive_response", "negative_response"),
    ("chosen", "rejected"),
    ("answer_matching_behavior", "answer_not_matching_behavior"),
    ("correct", "incorrect"),
)
"""Names for the two completions of a prompt: with the behaviour (label 1) and without it (label 0)."""

LABELS = {"0": 0, "1": 1, "false": 0, "true": 1}
"""The ways to write a label: a number or, in data for KTO, true or false; in CSV each is a text."""

ROLES = ("prompt", "completion", "label", "positive", "negative", "group")
"""The roles that a mapping may give to a field."""


@dataclass(frozen=True)
class LabelledText:
    """A completion and its prompt, a text or messages as their writer wrote them."""

    prompt: str | list[dict]
    completion: str
    label: int


def parse_mapping(text: str | None) -> dict[str, str]:
    """Parse "ROLE=FIELD,..." into {role: field}; {} for None.

    Raises:
        ValueError: if it is not of this form, or half a pair.
    """
    if text is None:
        return {}
    parts = [part.partition("=") for part in text.split(",")]
    roles = {role.strip(): name.strip() for role, _, name in parts}
    right = len(roles) == len(parts) == len(set(roles.values()))
    if not right or not all(role in ROLES and name for role, name in roles.items()):
        wanted = f"ROLE=FIELD,..., each role and each field once; roles are {', '.join(ROLES)}"
        raise ValueError(f"--map is {text!r}; expected {wanted}")
    if ("positive" in roles) != ("negative" in roles) or {"positive", "label"} <= set(roles):
        raise ValueError(f"--map is {text!r}; expected positive and negative, or completion and label")
    return roles


def labelled_texts(row: dict, mapping: Mapping[str, str], where: str) -> tuple[list[LabelledText], str]:
    """The labelled texts of a row, label 1 first, and how the fields were understood, as "pairs: question, ...".

    Raises:
        ValueError: beginning with `where`, if a field is missing or wrong, or the roles of the fields are unclear.
    """
    roles = _roles(row, mapping, where)
    return _pair(row, roles, where) if "positive" in roles else _single(row, roles, where)


def is_labelled_row(row: dict) -> bool:
    """Whether a row has a label or a pair of completions."""
    return "label" in row or any(name in row for pair in PAIRS for name in pair)


def _roles(row: dict, mapping: Mapping[str, str], where: str) -> dict[str, str]:
    """{role: field} of a row."""
    for role, name in mapping.items():
        if name not in row:
            raise ValueError(f"{where}: no {name}, which --map calls the {role}; the fields are {_names(row)}")
    roles = dict(mapping)
    if "positive" not in roles and not {"label", "completion"} & {*row, *roles}:
        pairs = [pair for pair in PAIRS if set(pair) & set(row)]
        if len(pairs) > 1:
            raise ValueError(f"{where}: {pairs[0][0]} and {pairs[1][0]}; expected one pair of completions, or --map")
        if pairs:
            roles["positive"], roles["negative"] = pairs[0]
        elif "messages" not in row:
            raise _unknown(row, where)
    known = [name for name in PROMPTS if name in row]
    if "prompt" not in roles and known:
        in_pair = isinstance(row.get(roles.get("positive")), list)  # there the prompt is inside
        if len(known) > 1 and not in_pair:
            raise ValueError(f"{where}: {known[0]} and {known[1]}; expected one of them")
        roles["prompt"] = known[0]
    return roles


def _unknown(row: dict, where: str) -> ValueError:
    pairs = ", ".join(f"{positive} and {negative}" for positive, negative in PAIRS)
    return ValueError(
        f"{where}: the fields are {_names(row)}; expected a prompt ({', '.join(PROMPTS)}) with completion and label, "
        f"or with a pair ({pairs}); else say which is which: --map prompt=FIELD,positive=FIELD,negative=FIELD"
    )


def _names(row: dict) -> str:
    return ", ".join(map(str, row)) or "none"


def _single(row: dict, roles: dict[str, str], where: str) -> tuple[list[LabelledText], str]:
    """A row that has one completion and its label."""
    named, own, marked = (roles.get(role, role) for role in ("prompt", "completion", "label"))
    prompt, completion, label = (row.get(name) for name in (named, own, marked))
    if named not in row or (own not in row and not isinstance(prompt, list)):
        raise _unknown(row, where)
    if named == "messages" and not isinstance(prompt, list):
        check_messages(prompt, where)
    if not isinstance(prompt, str | list):
        raise ValueError(f"{where}: {named} is {prompt!r}; expected a string")
    if isinstance(prompt, list) and own not in row:
        prompt, completion = _last_turn(prompt, named, where)
        own = "its last turn as completion"
    completion = _text(completion, own, where)
    label = LABELS.get(str(label).lower(), label)
    if label not in (0, 1):
        raise ValueError(f"{where}: {marked} is {label!r}; expected 0 or 1, or false or true")
    return [LabelledText(prompt, completion, int(label))], f"rows: {named}, {own}, {marked}"


def _pair(row: dict, roles: dict[str, str], where: str) -> tuple[list[LabelledText], str]:
    """A row that has a completion for each label."""
    names = roles["positive"], roles["negative"]
    named = roles.get("prompt")
    prompt, texts = row.get(named), [row.get(name) for name in names]
    if all(isinstance(text, list) for text in texts):
        (start, other), texts = zip(*map(_last_turn, texts, names, [where] * 2), strict=True)
        if start != other:
            raise ValueError(f"{where}: {names[0]} and {names[1]} differ before their last turn; expected one prompt")
        if start and prompt is not None and prompt not in (start, start[0]["content"], start[-1]["content"]):
            raise ValueError(f"{where}: {names[0]} does not begin with {named}; expected one prompt")
        prompt, named = (start, f"what {names[0]} begins with") if start else (prompt, named)
    elif prompt is None and all(isinstance(text, str) for text in texts):
        prompt, named = _common_start(*texts), f"what {names[0]} begins with"
        texts = [text[len(prompt) :] for text in texts]
    if not prompt:
        raise ValueError(f"{where}: no prompt; expected one of {', '.join(PROMPTS)}, or --map; has {_names(row)}")
    if not isinstance(prompt, str | list):
        raise ValueError(f"{where}: {named} is {prompt!r}; expected a string")
    texts = [_text(text, name, where) for text, name in zip(texts, names, strict=True)]
    found = [LabelledText(prompt, text, label) for text, label in zip(texts, (1, 0), strict=True)]
    return found, f"pairs: {named}, {names[0]} as label 1, {names[1]} as label 0"


def _text(value: object, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: {name} is {value!r}; expected a string")
    if not value.strip():
        raise ValueError(f"{where}: {name} is empty")
    return value


def _last_turn(messages: Sequence[dict], name: str, where: str) -> tuple[list[dict], str]:
    """The messages before the last, and the text of the last. Raises `ValueError` unless it is the assistant's."""
    *before, last = check_messages(messages, where)
    if last["role"] != "assistant":
        raise ValueError(f"{where}: {name} ends with the turn of {last['role']!r}; expected the assistant's")
    return before, last["content"]


def _common_start(one: str, other: str) -> str:
    """The beginning that both texts share, up to the end of a word."""
    at = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    while at and not one[at - 1].isspace():
        at -= 1
    return one[:at].rstrip()
