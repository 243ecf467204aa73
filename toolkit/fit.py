"""From activations to directions: rank the heads, take their directions and sigmas, and say what chance would give.

Heads are ranked by probes on grouped, stratified folds of the fitting rows; the test rows are touched once, at the
end. The published method (Li et al. 2023, section 3) with the faults of its code left out: sigma (ddof 0) comes from the
fitting rows alone, no group falls on both sides of a split, ties have an order, and the best head is compared with the
best head under permuted labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold

from .baseline import text_baseline, visible_texts
from .capture import Activations, Policy
from .examples import Example
from .probes import Probes, accuracy, auc, fit_probes


METHODS = ("mean-difference", "probe-weights", "random")
RANKINGS = ("auc", "accuracy")


@dataclass(frozen=True)
class FitSettings:
    """How directions are fitted.

    method: "mean-difference" (mean activation of label 1 minus that of label 0), "probe-weights" or "random" (control).
    top_k: heads to keep, at most those there are; None chooses it by cross-validation.
    rank_by: the out-of-fold score that ranks the heads, "auc" or "accuracy". Ties go to the larger separation.
    test_share: share of the groups held out for the test scores. folds: of the cross-validation on the others.
    c, balanced: of the logistic probes, see `fit_probes`.
    permutations: draws of the null, of which the largest AUC over heads is kept; 0 leaves the null out.
    """

    method: str = "mean-difference"
    top_k: int | None = 48
    rank_by: str = "auc"
    folds: int = 5
    test_share: float = 0.2
    c: float = 1.0
    balanced: bool = False
    permutations: int = 100
    seed: int = 0

    def __post_init__(self):
        for name, known in (("method", METHODS), ("rank_by", RANKINGS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}; expected 1 or more")
        if self.folds < 2:
            raise ValueError(f"folds is {self.folds}; expected 2 or more")
        if not 0 < self.test_share < 1:
            raise ValueError(f"test_share is {self.test_share:g}; expected a share between 0 and 1")


@dataclass(frozen=True)
class Fit:
    """What fitting found. Heads are numbered layer * heads + head; arrays are float64.

    ranking: [heads], best first. out_of_fold_auc, out_of_fold_accuracy, separation: [heads], of the cross-validation;
    test_auc, test_accuracy: [heads], of probes fitted on every fitting row. directions [heads, head_dim] (unit),
    sigma [heads]. null: [permutations], the largest out-of-fold AUC over heads with permuted labels.
    stability: mean Jaccard overlap of the top K between pairs of folds. top_k_auc: {K: out-of-fold AUC} where K was
    chosen by cross-validation. layer_*: [layers], of probes on the residual stream after each layer.
    text_auc: out-of-fold AUC of the texts alone. fitting, test: row indices. test_scores: [test rows, heads].
    """

    settings: FitSettings
    top_k: int
    ranking: np.ndarray
    out_of_fold_auc: np.ndarray
    out_of_fold_accuracy: np.ndarray
    separation: np.ndarray
    test_auc: np.ndarray
    test_accuracy: np.ndarray
    test_scores: np.ndarray
    directions: torch.Tensor
    sigma: torch.Tensor
    null: np.ndarray
    stability: float
    top_k_auc: dict[int, float]
    layer_auc: np.ndarray
    layer_accuracy: np.ndarray
    layer_test_accuracy: np.ndarray
    text_auc: float
    fitting: np.ndarray
    test: np.ndarray

    def p_value(self, rank: int) -> float:
        """Share of the null that reaches the AUC of the head at `rank` (0 is the best), counting the data themselves."""
        return float((1 + (self.null >= self.out_of_fold_auc[self.ranking[rank]]).sum()) / (1 + len(self.null)))

    @property
    def supported(self) -> bool | None:
        """Whether the best head beats the null of the maximum at 5%; None without a null, or with one too small to say."""
        return None if len(self.null) < 19 else self.p_value(0) <= 0.05


def split_groups(examples: Sequence[Example], settings: FitSettings) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the fitting rows and of the test rows; no group is in both. Rows that name a split in
    `meta["split"]` ("fit" or "test") go where they say.

    Raises:
        ValueError: if a group is on both sides of the split that the rows name.
    """
    named = [example.meta.get("split") for example in examples]
    if any(split is not None for split in named):
        unknown = next((row for row, split in enumerate(named) if split not in ("fit", "test")), None)
        if unknown is not None:
            raise ValueError(
                f"row {unknown + 1}: meta.split is {named[unknown]!r}; expected 'fit' or 'test' in every row"
            )
        sides = {
            split: {e.group for e, s in zip(examples, named, strict=True) if s == split} for split in ("fit", "test")
        }
        both = sorted(sides["fit"] & sides["test"])
        if both:
            raise ValueError(
                f"group {both[0]!r} is on both sides of meta.split ({len(both)} groups are); expected one side"
            )
        is_test = np.array([split == "test" for split in named])
    else:
        groups = sorted({example.group for example in examples})
        rng = np.random.default_rng(settings.seed)
        held_out = set(rng.permutation(groups)[: max(1, round(len(groups) * settings.test_share))].tolist())
        is_test = np.array([example.group in held_out for example in examples])
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def fold_ids(y: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each row, groups kept whole and labels balanced."""
    if len(np.unique(groups)) < folds:
        raise ValueError(
            f"{len(y)} rows of {len(np.unique(groups))} groups to fit on, but {folds} folds; expected a group for each "
            "fold: add groups, or lower --folds"
        )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    ids = np.empty(len(y), dtype=int)
    for fold, (_, rows) in enumerate(splitter.split(np.zeros(len(y)), y, groups)):
        ids[rows] = fold
    for fold in range(folds):
        for name, part in (("in", y[ids == fold]), ("outside", y[ids != fold])):
            if len(np.unique(part)) < 2:
                raise ValueError(
                    f"fold {fold + 1} of {folds} has {len(part)} rows {name} it, of one class; expected both: add groups, or "
                    "lower --folds"
                )
    return ids


def _probes(x: torch.Tensor, y: np.ndarray, settings: FitSettings) -> Probes:
    """Probes of all heads, solved on the GPU where there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return fit_probes(x, torch.from_numpy(y), settings.c, settings.balanced, device=device)


def _out_of_fold(x: torch.Tensor, y: np.ndarray, folds: np.ndarray, settings: FitSettings) -> np.ndarray:
    """Log-odds [rows, heads] of each row by probes that saw none of its fold."""
    scores = np.empty(x.shape[:2])
    for fold in np.unique(folds):
        held_out = folds == fold
        probes = _probes(x[~held_out], y[~held_out], settings)
        scores[held_out] = probes.decision(x[held_out]).numpy()
    return scores


def _fold_auc(scores: np.ndarray, y: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """AUC [folds, heads], within each fold: probes of different folds have different zeros."""
    return np.stack([auc(scores[folds == fold], y[folds == fold]) for fold in np.unique(folds)])


def _separation(scores: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance between the classes' mean scores in pooled standard deviations, [heads]. Orders heads that are tied."""
    one, zero = scores[y == 1], scores[y == 0]
    return (one.mean(0) - zero.mean(0)) / np.sqrt((one.var(0) + zero.var(0)) / 2 + 1e-12)


def _rank(x: torch.Tensor, y: np.ndarray, folds: np.ndarray, settings: FitSettings):
    """The ranking [heads] and what it was made of: scores [rows, heads], fold AUC [folds, heads], separation [heads]."""
    scores = _out_of_fold(x, y, folds, settings)
    fold_auc, separation = _fold_auc(scores, y, folds), _separation(scores, y)
    score = fold_auc.mean(0) if settings.rank_by == "auc" else accuracy(scores, y)
    return np.lexsort((-separation, -score.round(6))), scores, fold_auc, separation


def _permuted_within_groups(y: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels permuted within each group; all of them where no group holds both labels (there is nothing to permute)."""
    permuted = y.copy()
    mixed = [group for group in np.unique(groups) if len(np.unique(y[groups == group])) == 2]
    if not mixed:
        names, index = np.unique(groups, return_inverse=True)  # whole groups swap labels
        of_group = np.array([y[groups == name][0] for name in names])
        return rng.permutation(of_group)[index]
    for group in mixed:
        rows = groups == group
        permuted[rows] = rng.permutation(y[rows])
    return permuted


def directions_of(x: torch.Tensor, y: np.ndarray, settings: FitSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit directions [heads, head_dim] towards label 1, and the standard deviation [heads] (ddof 0) of the projections
    of all rows `x` [rows, heads, head_dim] on them (section 3.2)."""
    x, labels = x.double(), torch.from_numpy(y)
    if settings.method == "mean-difference":
        directions = x[labels == 1].mean(0) - x[labels == 0].mean(0)
    elif settings.method == "probe-weights":
        directions = _probes(x, y, settings).coef
    else:
        generator = torch.Generator().manual_seed(settings.seed)
        directions = torch.randn(x.shape[1:], generator=generator, dtype=torch.float64)
    directions = torch.nn.functional.normalize(directions, dim=-1)
    return directions, torch.einsum("nhd,hd->nh", x, directions).std(0, correction=0)


def _choose_top_k(x: torch.Tensor, y: np.ndarray, groups: np.ndarray, folds: np.ndarray, settings: FitSettings):
    """{K: out-of-fold AUC of the summed projections, in sigmas, on the K best heads}, with heads, directions and sigmas of each fold made
    without it (nested: the ranking has folds of its own). K doubles from 1."""
    ks = sorted({min(2**i, x.shape[1]) for i in range(x.shape[1].bit_length() + 1)})
    per_fold = []
    for fold in np.unique(folds):
        inside, outside = folds != fold, folds == fold
        inner = fold_ids(y[inside], groups[inside], max(2, settings.folds - 1), settings.seed)
        ranking, *_ = _rank(x[inside], y[inside], inner, settings)
        directions, sigma = directions_of(x[inside], y[inside], settings)
        projections = torch.einsum("nhd,hd->nh", x[outside].double(), directions) / sigma.clamp_min(1e-12)
        sums = projections[:, ranking.copy()].cumsum(1).numpy()
        per_fold.append([auc(sums[:, [k - 1]], y[outside])[0] for k in ks])
    return dict(zip(ks, np.mean(per_fold, 0).tolist(), strict=True))


def fit(
    activations: Activations,
    examples: Sequence[Example],
    policy: Policy,
    settings: FitSettings,
    progress: Callable[[str], None] = lambda step: None,
) -> Fit:
    """Fit directions on the activations of `examples` that `policy` kept.

    Raises:
        ValueError: if there are fewer groups than folds, a class is missing on one side of a split, or a group is on both.
    """
    x, residual = activations.heads.flatten(1, 2), activations.residual
    y = np.array([example.label for example in examples])
    groups = np.array([example.group for example in examples])
    fitting, test = split_groups(examples, settings)
    for name, rows in (("fitting", fitting), ("test", test)):
        if len(np.unique(y[rows])) < 2:
            raise ValueError(f"the {name} rows ({len(rows)} of {len(y)}) are of one class; expected both: add groups")
    x_fit, y_fit, groups_fit = x[fitting], y[fitting], groups[fitting]
    folds = fold_ids(y_fit, groups_fit, settings.folds, settings.seed)

    progress("cross-validation of the heads")
    ranking, scores, fold_auc, separation = _rank(x_fit, y_fit, folds, settings)
    top_k_auc: dict[int, float] = {}
    if settings.top_k is None:
        progress("cross-validation of the number of heads")
        top_k_auc = _choose_top_k(x_fit, y_fit, groups_fit, folds, settings)
    top_k = min(settings.top_k or max(top_k_auc, key=lambda k: (round(top_k_auc[k], 6), -k)), len(ranking))
    tops = [set(np.lexsort((-separation, -one.round(6)))[:top_k].tolist()) for one in fold_auc]
    pairs = [(a, b) for i, a in enumerate(tops) for b in tops[:i]]
    stability = float(np.mean([len(a & b) / len(a | b) for a, b in pairs]))

    rng, null = np.random.default_rng(settings.seed), []
    for draw in range(settings.permutations):
        progress(f"permutation {draw + 1} of {settings.permutations}")
        permuted = _permuted_within_groups(y_fit, groups_fit, rng)
        permuted_scores = _out_of_fold(x_fit, permuted, folds, settings)
        null.append(_fold_auc(permuted_scores, permuted, folds).mean(0).max())

    progress("layers and texts")
    layer_scores = _out_of_fold(residual[fitting], y_fit, folds, settings)
    texts = visible_texts(examples, policy)
    text_scores = text_baseline([texts[i] for i in fitting], y_fit, folds)

    progress("test rows")
    test_scores = _probes(x_fit, y_fit, settings).decision(x[test]).numpy()
    layer_probes = _probes(residual[fitting], y_fit, settings)
    directions, sigma = directions_of(x_fit, y_fit, settings)
    return Fit(
        settings=settings,
        top_k=top_k,
        ranking=ranking,
        out_of_fold_auc=fold_auc.mean(0),
        out_of_fold_accuracy=accuracy(scores, y_fit),
        separation=separation,
        test_auc=auc(test_scores, y[test]),
        test_accuracy=accuracy(test_scores, y[test]),
        test_scores=test_scores,
        directions=directions,
        sigma=sigma,
        null=np.array(null),
        stability=stability,
        top_k_auc=top_k_auc,
        layer_auc=_fold_auc(layer_scores, y_fit, folds).mean(0),
        layer_accuracy=accuracy(layer_scores, y_fit),
        layer_test_accuracy=accuracy(layer_probes.decision(residual[test]).numpy(), y[test]),
        text_auc=float(_fold_auc(text_scores[:, None], y_fit, folds).mean()),
        fitting=fitting,
        test=test,
    )
