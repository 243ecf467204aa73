"""What a card says of a sentence: what is kept, what it costs, and that nothing is where that is so."""

import pytest

from iti_llama.toolkit.repo.kept_lines import BOTH, TOLD, kept_line, kept_lines


def estimate(mean: float) -> dict:
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "n": 80, "groups": 80}


def evaluation(beyond: bool) -> dict:
    shares = {"plain": 0.97, "steered": 0.91, TOLD: 0.88}
    text = {"steered": {"perplexity_plain": 10.0, "perplexity_steered": 10.5, "kl": estimate(0.21)}}
    kept = {"steered": 0.93, BOTH: 1.4, "minus alpha": -0.6, "random 1": 0.05, "random 2": -0.02}
    said = {"text": "Be brief.", "place": "after", "error": estimate(0.13), "likeness": -0.25}
    said |= {"kept": {name: estimate(value) for name, value in kept.items()}, "beyond_random": beyond}
    return {
        "instruction": said | {"tokens_saved": 8.0, "prefill_share": 0.25},
        "conditions": [{"condition": name, "correct": estimate(value)} for name, value in shares.items()],
        "divergence": {"plain answers": text, "prompts": text},
    }


def test_it_opens_with_the_sentence_and_says_what_is_kept_and_what_it_costs():
    said = " ".join(kept_lines(evaluation(True)).split())
    assert said.startswith("> Be brief. ") and "Nothing is kept" not in said
    for words in (
        "keeps **0.93 [0.83, 1.03]**", "told after the request", "mistakes 13% of others", "1.40 [1.30, 1.50]",
        "At minus alpha: -0.60 [-0.70, -0.50]", "0.05 [-0.05, 0.15], -0.02 [-0.12, 0.08]",
        "91% of the answers are intact", "plain 97%, told 88%", "1.050 times plain's",
        "0.210 nats a token", "8 tokens a request, 25% of its prompt", "-0.25",
    ):  # fmt: skip
        assert words in said, words


@pytest.mark.parametrize("say", [kept_line, kept_lines])
def test_what_random_directions_do_as_well_is_not_kept(say):
    assert "nothing is kept beyond random directions" in say(evaluation(False)).lower()
    assert "beyond random" not in say(evaluation(True))
