"""Pictures of a fit: read back as pixels, they show what the fit holds."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from iti_llama.toolkit.data.labelled_set import Example
from iti_llama.toolkit.fit.figures import figures
from iti_llama.toolkit.fit.fit_directions import fit
from iti_llama.toolkit.fit.positions import Policy
from iti_llama.toolkit.fit.record_activations import Activations
from iti_llama.toolkit.fit.settings import FitSettings


BLUE, ORANGE, RED = (0.12, 0.47, 0.71), (1.0, 0.5, 0.05), (1.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def found():
    """A fit of 2 x 3 heads, of which the last one tells the labels apart."""
    rng = np.random.default_rng(0)
    examples = [Example(f"p{i // 2}", "c", i % 2, f"g{i // 2}") for i in range(80)]
    heads = torch.from_numpy(rng.normal(size=(80, 2, 3, 4))).float()
    heads[:, 1, 2, 0] += 8 * torch.tensor([e.label for e in examples])
    activations = Activations(heads, torch.from_numpy(rng.normal(size=(80, 2, 8))).float())
    settings = FitSettings(top_k=2, folds=4, permutations=19)
    return fit(activations, examples, Policy("last"), settings), examples, activations


@pytest.fixture
def drawn(found, tmp_path):
    """{name: pixels} of the found fit with some of its fields changed."""

    def draw(**fields) -> dict[str, np.ndarray]:
        fitted, examples, activations = found
        paths = figures(replace(fitted, **fields), examples, activations, tmp_path / str(len([*tmp_path.iterdir()])))
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
        return {path.stem: imread(path)[..., :3] for path in paths}

    return draw


def where(pixels: np.ndarray, colour, within: float = 0.25) -> np.ndarray:
    """The (row, column) of every pixel of about this colour."""
    return np.argwhere(np.abs(pixels - colour).max(-1) < within)


def test_each_picture_is_a_readable_size_and_holds_more_than_paper(drawn):
    for pixels in drawn().values():
        assert min(pixels.shape[:2]) > 200 and max(pixels.shape[:2]) < 2000
        assert 0.02 < (pixels.min(-1) < 0.95).mean() < 0.98


def test_a_red_square_stands_on_each_chosen_head(drawn):
    one, three = (where(drawn(top_k=k)["head_auc"], RED) for k in (1, 3))
    assert len(three) == pytest.approx(3 * len(one), rel=0.3)
    height, width, _ = drawn(top_k=1)["head_auc"].shape
    assert one[:, 0].max() < height / 2 and np.ptp(one, axis=0).max() < 20  # layer 1 lies above layer 0
    assert width / 2 < one[:, 1].mean() < 0.8 * width  # head 2 is the last before the colour bar


def test_the_best_head_holds_label_1_to_the_right_of_label_0(drawn):
    pixels = drawn(top_k=1)["projections"]
    pixels = pixels[len(pixels) // 2 :]  # below the legend
    blue, orange = (where(pixels, np.array(colour) * 0.6 + 0.4, 0.05) for colour in (BLUE, ORANGE))
    assert blue[:, 1].max() < orange[:, 1].min()


def test_at_most_four_heads_are_projected_side_by_side(drawn):
    widths = [drawn(top_k=k)["projections"].shape[1] for k in (1, 2, 4, 6)]
    assert widths[0] < widths[1] < widths[2] == widths[3]


def test_the_null_lies_left_of_a_head_that_beats_it(drawn):
    pixels = drawn(top_k=1)["null"]
    pixels = pixels[len(pixels) // 2 :]
    grey = where(pixels, (0.7, 0.7, 0.7))
    assert np.median(grey[:, 1]) < where(pixels, RED)[:, 1].min()


def test_without_a_null_there_is_no_picture_of_it_and_the_others_are_the_same(drawn):
    with_null, without = drawn(), drawn(null=np.array([]))
    assert with_null.keys() - without.keys() == {"null"}
    assert all(np.array_equal(without[name], with_null[name]) for name in without)


def test_the_layers_are_drawn_as_they_are(drawn, found):
    low, high = (drawn(layer_accuracy=np.array([0.5, top]))["layers"] for top in (0.5, 1.0))
    assert np.array_equal(low, drawn(layer_accuracy=np.array([0.5, 0.5]))["layers"])
    heights = [where(pixels, BLUE)[:, 0].min() / len(pixels) for pixels in (low, high)]
    assert heights[1] < 0.2 and heights[1] < heights[0]
