"""What the page draws: nothing of an answer is taken for markup, differences and strengths are those that are so."""

import json
import math
import re

import torch

from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.repo.steered_repo import SteeredRepo
from iti_llama.toolkit.space.draw import answer_html, differing, heads_css, safe_strengths, scale_html
from iti_llama.toolkit.space.steered import Answer


def answer(text, alpha=0.0):
    tokens = tuple(re.findall(r"\w+|\W", text))
    return Answer(alpha, tuple(range(len(tokens))), tokens, text)


def test_what_differs_from_the_plain_answer():
    plain, other = answer("return a + b"), answer("return sum(b)", 1.0)
    assert [other.tokens[place] for place in sorted(differing(other, plain))] == ["sum", "(", ")"]
    assert differing(plain, plain) == set()


def test_an_answer_is_text_never_markup():
    nasty = answer('<script>alert("x")</script>&amp;', 1.0)
    html = answer_html(nasty, nasty, [(0, 1)], torch.zeros(1, len(nasty.tokens)), verdict="<b>")
    assert "<script" not in html and "<b>" not in html and "&lt;" in html and "&amp;" in html
    assert 'aria-label="Answer at alpha +1"' in html


def test_colour_is_the_heads_mean_and_the_title_names_the_one_that_reads_most():
    one = answer("a b", 1.0)
    html = answer_html(one, one, [(0, 1), (2, 3)], torch.tensor([[1.0, -1.0, 0.0], [2.0, -4.0, 0.0]]), full=2.5)
    first, second = re.findall(r'rgba\((.*?)\)" title="(.*?)"', html)[:2]
    assert first == ("224, 122, 32, 0.33", "mean of 2 heads +1.50 sigmas; most: layer 2 head 3 +2.00")
    assert second == ("40, 120, 210, 0.55", "mean of 2 heads -2.50 sigmas; most: layer 2 head 3 -4.00")


def test_safe_strengths_end_before_the_first_loss_beyond_the_guard():
    repo = SteeredRepo.open(ROOT)
    found, sweep = safe_strengths(repo), json.loads((ROOT / "sweep.json").read_text())
    (plain,) = {point["at"]["correct"]["mean"] for point in sweep["points"] if point["alpha"] == 0}
    points = [point for point in sweep["points"] if point["top_k"] == repo.heads and point["alpha"] > 0]
    beyond = {
        point["alpha"]
        for point in points
        if plain - point["at"]["correct"]["mean"] > sweep["guard"] + 1e-9
        or point["kl"] > (sweep["kl_guard"] or math.inf)
        or point.get("perplexity", 1.0) > 1.1
    }
    alphas = sorted(point["alpha"] for point in points)
    assert repo.alpha in found and found == [a for a in alphas if a <= max(found)]
    assert not beyond & set(found) and min(beyond) == alphas[len(found)]
    html = scale_html(repo, 2.0)
    assert f"width: {50 * max(found):.1f}%" in html and f"the shipped strength, {repo.alpha:g}" in html


def test_heads_lie_in_the_picture_by_layer_and_head():
    lines = heads_css([(3, 7), (1, 7), (1, 2)]).splitlines()
    assert [re.findall(r"grid-\w+: (\d+)", line) for line in lines] == [["2", "2"], ["1", "2"], ["1", "1"]]
