"""Which tokens a policy means, and what it cannot mean."""

import pytest
from reference import tiny_tokenizer
from tokenizers import processors

from iti_llama.toolkit.data.labelled_set import Example
from iti_llama.toolkit.fit.positions import Policy, tokenize
from iti_llama.toolkit.fit.record_activations import capture
from iti_llama.toolkit.repo.fit_repo import fit_repo
from iti_llama.toolkit.repo.settings import RepoSettings


def test_policies_keep_the_positions_they_name(tokenizer):
    example = Example("def f():\n", "x = 1\ny = 2\nreturn x\n", 1, "g")
    whole = tokenize(example, Policy("last"), tokenizer)
    prompt = tokenizer(example.prompt)["input_ids"]
    assert whole.first == len(whole.ids) - 1
    assert tokenize(example, Policy("completion-mean"), tokenizer).first == len(prompt)
    assert tokenize(example, Policy("fraction", 0.0), tokenizer).ids == prompt
    half = tokenize(example, Policy("fraction", 0.6), tokenizer)
    assert tokenizer.decode(half.ids).endswith("y = 2\n")
    assert tokenize(example, Policy("fraction", 1.0), tokenizer) == whole


@pytest.mark.parametrize("text", ["first", "fraction", "fraction 2", "fraction -1", "fraction 1.2.3", "fraction ."])
def test_an_unknown_policy_is_refused(text):
    with pytest.raises(ValueError, match="policy is"):
        Policy.parse(text)


def persona(prompts: list[str]) -> list[Example]:
    """Rows as persona sets have them: a word for an answer."""
    return [Example(p, word, label, p) for p in prompts for label, word in enumerate((" No", " Yes"))]


def test_a_part_of_completions_without_line_ends_is_refused_before_the_work(tmp_path):
    """There is no base at that path: nothing was loaded."""
    with pytest.raises(ValueError, match=r"policy is 'fraction 0.5'.* 4 of 4 .*row 1, ' No'.*expected last"):
        fit_repo(RepoSettings("no base", policy="fraction 0.5"), persona(["a", "b"]), tmp_path)
    mixed = [Example("a", "x = 1\ny = 2\n", 1, "a"), Example("a", "x = 1\n", 0, "a")]
    with pytest.raises(ValueError, match="1 of 2 .*row 2, 'x = 1"):
        Policy("fraction", 0.5).check(mixed)
    for policy in (Policy("last"), Policy("completion-mean"), Policy("fraction", 1.0)):
        policy.check([*persona(["a", "b"]), *mixed])


@pytest.mark.parametrize("prompts", [["", ""], ["a", "bc"]])
def test_prompts_that_are_the_same_for_both_labels_tell_nothing(prompts):
    with pytest.raises(ValueError, match="policy is 'fraction 0'.*same texts"):
        Policy("fraction", 0.0).check(persona(prompts) * 3)
    Policy("fraction", 0.0).check([*persona(prompts), Example("d", " Yes", 1, "g")])
    Policy("fraction", 0.0).check([Example(p, " Yes", 1, "g") for p in prompts])


def test_a_text_without_tokens_is_named(tokenizer, model):
    bare = tiny_tokenizer()
    bare.backend_tokenizer.post_processor = processors.Sequence([])
    rows = [Example("a", " Yes", 1, "g"), Example("", " No", 0, "g")]
    with pytest.raises(ValueError, match="row 2 has no token to read: policy is 'fraction 0'"):
        capture(model, bare, rows, Policy("fraction", 0.0))


def test_fraction_0_reads_nothing_of_a_completion_that_begins_with_a_new_line():
    assert Policy("fraction", 0.0).cut("\n    return x\n") == ""
