"""From activations to directions: rank the heads, take their directions and sigmas, and compare with chance.

Heads are ranked by probes on grouped, stratified folds of the fitting rows; the test rows are touched once, at the
end. This is the published method (Li et al. 2023, section 3) without the faults of its code: sigma (ddof 0) comes from
the fitting rows alone, no group falls on both sides of a split, ties have an order, and the best head is compared with
the best head under permuted labels.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from iti_llama import ITIDirections

from ..data.labelled_set import Example, checksum
from ..data.splits import fold_ids, split_groups
from ..data.text_baseline import text_baseline
from ..foundation.package import __version__
from .fitted_heads import Fit
from .positions import Policy
from .probes import accuracy, auc
from .rank_heads import fold_auc_of, out_of_fold, permuted_with_both_classes, rank_heads, solve_probes
from .record_activations import Activations
from .settings import FitSettings


def directions_of(x: torch.Tensor, y: np.ndarray, settings: FitSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit directions [heads, head_dim] towards label 1, and the standard deviation [heads] (ddof 0) of the
    projections of all rows `x` [rows, heads, head_dim] on them (section 3.2)."""
    x, labels = x.double(), torch.from_numpy(y)
    if settings.method == "mean-difference":
        directions = x[labels == 1].mean(0) - x[labels == 0].mean(0)
    elif settings.method == "probe-weights":
        directions = solve_probes(x, y, settings).coef
    else:
        generator = torch.Generator().manual_seed(settings.seed)
        directions = torch.randn(x.shape[1:], generator=generator, dtype=torch.float64)
    directions = torch.nn.functional.normalize(directions, dim=-1)
    return directions, torch.einsum("nhd,hd->nh", x, directions).std(0, correction=0)


def agreement_of(x: torch.Tensor, y: np.ndarray, groups: np.ndarray) -> np.ndarray | None:
    """How far the differences of pairs agree, [heads]: the mean cosine between those of two groups. A group's
    difference is the mean of its rows of label 1 minus that of its rows of label 0. Near 0 they share no direction,
    and no single vector steers all (Braun et al. 2025, arXiv 2505.22637). None if fewer than two groups have both
    labels."""
    pairs = [(groups == group) for group in np.unique(groups) if len(np.unique(y[groups == group])) == 2]
    if len(pairs) < 2:
        return None
    of = [x[rows & (y == 1)].double().mean(0) - x[rows & (y == 0)].double().mean(0) for rows in pairs]
    unit = torch.nn.functional.normalize(torch.stack(of), dim=-1)  # [pairs, heads, head_dim]
    n = len(unit)
    return ((unit.sum(0).square().sum(-1) - n) / (n * (n - 1))).numpy()


def choose_top_k(x: torch.Tensor, y: np.ndarray, groups: np.ndarray, folds: np.ndarray, settings: FitSettings):
    """{K: out-of-fold AUC of the summed projections, in sigmas, on the K best heads}. Heads, directions and sigmas for
    a fold are made without it (nested: the ranking has its own folds). K doubles from 1."""
    ks = sorted({min(2**i, x.shape[1]) for i in range(x.shape[1].bit_length() + 1)})
    per_fold = []
    for fold in np.unique(folds):
        inside, outside = folds != fold, folds == fold
        inner = fold_ids(y[inside], groups[inside], max(2, settings.folds - 1), settings.seed)
        ranking, *_ = rank_heads(x[inside], y[inside], inner, settings)
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
        ValueError: if there are fewer groups than folds, a class is missing on one side of a split, or a group is on
            both sides.
    """
    x, residual = activations.heads.flatten(1, 2), activations.residual
    y = np.array([example.label for example in examples])
    groups = np.array([example.group for example in examples])
    fitting, test = split_groups(examples, settings.test_share, settings.seed)
    for name, rows in (("fitting", fitting), ("test", test)):
        if len(np.unique(y[rows])) < 2:
            raise ValueError(f"the {name} rows ({len(rows)} of {len(y)}) are of one class; expected both: add groups")
    x_fit, y_fit, groups_fit = x[fitting], y[fitting], groups[fitting]
    folds = fold_ids(y_fit, groups_fit, settings.folds, settings.seed)

    progress("cross-validation of the heads")
    ranking, scores, fold_auc, separation = rank_heads(x_fit, y_fit, folds, settings)
    top_k_auc: dict[int, float] = {}
    if settings.top_k is None:
        progress("cross-validation of the number of heads")
        top_k_auc = choose_top_k(x_fit, y_fit, groups_fit, folds, settings)
    top_k = min(settings.top_k or max(top_k_auc, key=lambda k: (round(top_k_auc[k], 6), -k)), len(ranking))
    tops = [set(np.lexsort((-separation, -one.round(6)))[:top_k].tolist()) for one in fold_auc]
    pairs = [(a, b) for i, a in enumerate(tops) for b in tops[:i]]
    stability = float(np.mean([len(a & b) / len(a | b) for a, b in pairs]))

    rng, null = np.random.default_rng(settings.seed), []
    for draw in range(settings.permutations):
        progress(f"permutation {draw + 1} of {settings.permutations}")
        permuted = permuted_with_both_classes(y_fit, groups_fit, folds, rng)
        permuted_scores = out_of_fold(x_fit, permuted, folds, settings)
        largest = fold_auc_of(permuted_scores, permuted, folds).mean(0).max()
        null.append(1.0 if np.isnan(largest) else largest)  # a NaN is no evidence against chance

    progress("layers and texts")
    layer_scores = out_of_fold(residual[fitting], y_fit, folds, settings)
    texts = [example.prompt + policy.cut(example.completion) for example in examples]  # what the model has read there
    text_scores = text_baseline([texts[i] for i in fitting], y_fit, folds)

    progress("test rows")
    test_scores = solve_probes(x_fit, y_fit, settings).decision(x[test]).numpy()
    layer_probes = solve_probes(residual[fitting], y_fit, settings)
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
        layer_auc=fold_auc_of(layer_scores, y_fit, folds).mean(0),
        layer_accuracy=accuracy(layer_scores, y_fit),
        layer_test_accuracy=accuracy(layer_probes.decision(residual[test]).numpy(), y[test]),
        text_auc=float(fold_auc_of(text_scores[:, None], y_fit, folds).mean()),
        agreement=agreement_of(x_fit, y_fit, groups_fit),
        fitting=fitting,
        test=test,
    )


def to_directions(
    found: Fit, activations: Activations, examples: Sequence[Example], policy: Policy, base: str, dataset: str
) -> ITIDirections:
    """The directions of the best-ranked heads of a fit, with their provenance."""
    layers, heads, head_dim = activations.heads.shape[1:]
    chosen = torch.from_numpy(found.ranking[: found.top_k].copy())
    settings = found.settings
    ranked_by = f"out-of-fold {settings.rank_by}, {settings.folds} folds by group"
    if found.effects is not None:
        ranked_by = "causal: objective gained per root of divergence"
    return ITIDirections(
        heads=torch.stack([chosen // heads, chosen % heads], 1),
        directions=torch.nn.functional.normalize(found.directions[chosen], dim=-1).float(),
        sigma=found.sigma[chosen].float(),
        scores=torch.from_numpy(found.out_of_fold_auc)[chosen].float(),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        head_dim=head_dim,
        base_model=base,
        provenance={
            "dataset": dataset,
            "dataset_sha256": checksum(examples),
            "method": settings.method,
            "policy": str(policy),
            "rows": str(len(found.fitting)),
            "ranked_by": ranked_by,
            "sigma_ddof": "0",
            "seed": str(settings.seed),
            "supported": {True: "yes", False: "no", None: "not tested"}[found.supported],
            "tool": f"iti-llama {__version__}",
        },
    )
