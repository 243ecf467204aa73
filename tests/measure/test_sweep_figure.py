"""The picture of a sweep: what was chosen, both signs, and the random draws as a band."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from iti_llama.toolkit.foundation.intervals import estimate
from iti_llama.toolkit.measure.sweep import Point, Rates
from iti_llama.toolkit.measure.sweep_figure import sweep_figure


ALPHAS = [0.5, 1.0]
GREEN, GREY, ORANGE = (0.17, 0.63, 0.17), (0.8, 0.8, 0.8), (1.0, 0.5, 0.05)


def rates(correct: float, target: float) -> Rates:
    both = max(0.0, correct + target - 1)
    return Rates(
        *(estimate([i < round(20 * share) for i in range(20)], range(20)) for share in (correct, target, both))
    )


def point(alpha: float, target: float, kl: float = 0.0, top_k: int = 8, minus: float = 0.0, scope="all") -> Point:
    return Point(top_k, alpha, scope, rates(1, target), rates(1, minus), rates(1, 1), kl, kl, 1.0)


POINTS = [point(0, 0.1), point(0.5, 0.4, 0.1), point(1.0, 0.9, 0.3)]
RANDOM = [[rates(1, share)] * 4 for share in (0.1, 0.5)]


@pytest.fixture
def drawn(tmp_path):
    def draw(points=POINTS, chosen=POINTS[2], found=RANDOM, target="idiomatic", **kwargs) -> np.ndarray:
        path = tmp_path / f"{len([*tmp_path.iterdir()])}" / "new.png"
        assert sweep_figure(points, chosen, ALPHAS, found, target, path, **kwargs) == path
        assert path.read_bytes().startswith(b"\x89PNG")
        return imread(path)[..., :3]

    return draw


def where(pixels: np.ndarray, colour) -> np.ndarray:
    """The (row, column) of every pixel of about this colour."""
    return np.argwhere(np.abs(pixels - colour).max(-1) < 0.1)


def test_it_is_a_picture_of_a_readable_size_and_the_same_each_time(drawn):
    pixels = drawn()
    assert min(pixels.shape[:2]) > 400 and max(pixels.shape[:2]) < 1200
    assert np.array_equal(pixels, drawn())


def test_the_order_of_the_points_does_not_matter(drawn):
    assert np.array_equal(drawn(), drawn(POINTS[::-1]))


def test_points_of_another_k_or_scope_are_left_out(drawn):
    others = [point(0.5, 0.8, top_k=4), point(1.0, 0.2, scope="generated")]
    assert np.array_equal(drawn(), drawn([*POINTS, *others]))
    chosen = point(1.0, 0.9, 0.3, top_k=4)
    assert not np.array_equal(drawn(), drawn([*POINTS, chosen], chosen))


def test_the_random_draws_are_a_band_between_the_least_and_the_most(drawn):
    narrow, wide = ([[rates(1, share)] * 4 for share in shares] for shares in ((0.3, 0.4), (0.3, 0.35, 0.8)))
    areas = [len(where(drawn(found=found), GREY)) for found in ([], narrow, wide)]
    assert areas[0] < areas[1] < areas[2] / 2


@pytest.mark.parametrize(
    "changed",
    [
        replace(POINTS[2], at=rates(1, 0.7)),
        replace(POINTS[2], at=rates(0.8, 0.9)),
        replace(POINTS[2], minus=rates(1, 0.3)),
        replace(POINTS[2], kl=0.2),
        replace(POINTS[2], kl_minus=0.2),
    ],
)
def test_every_number_at_either_sign_is_drawn(drawn, changed):
    assert not np.array_equal(drawn(), drawn([*POINTS[:2], changed]))


def test_minus_alpha_is_on_the_left_and_divergence_below(drawn):
    pixels = drawn([POINTS[0], POINTS[1], replace(POINTS[2], kl=1.0, kl_minus=0.0)])
    green, orange = where(pixels, GREEN), where(pixels, ORANGE)
    assert green[green[:, 0].argmin(), 1] > 0.8 * pixels.shape[1]
    assert np.median(orange[:, 0]) < green[:, 0].min()


def test_the_chosen_alpha_and_the_name_of_the_target_are_shown(drawn):
    assert not np.array_equal(drawn(), drawn(chosen=POINTS[1]))
    assert not np.array_equal(drawn(), drawn(target="rare techniques"))


@pytest.fixture
def figure(drawn, monkeypatch):
    """Draws, and returns what matplotlib was told to draw."""

    def draw(**kwargs) -> Figure:
        drawing, save = [], Figure.savefig
        monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: drawing.append(self) or save(self, *a, **k))
        drawn(**kwargs)
        return drawing[0]

    return draw


@pytest.mark.parametrize("target", [r"^    return$|^\w+$", "$a$", r"\$\d+ or \$x$", "one $", r"\$"])
def test_a_pattern_is_shown_as_it_is_and_not_as_a_formula(figure, target):
    texts = figure(target=target).axes[0].get_legend().get_texts()
    shown = [text._preprocess_math(text.get_text()) for text in texts]
    assert (target, False) in shown and (f"{target}, random directions", False) in shown


def test_alpha_is_in_sigmas_where_it_is(figure):
    assert figure().axes[1].get_xlabel() == "alpha, in sigmas (dotted: chosen)"
    assert figure(site="residual", chosen=None).axes[1].get_xlabel() == "alpha (nothing chosen)"
