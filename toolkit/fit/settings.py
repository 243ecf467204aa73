"""How directions are fitted."""

from dataclasses import dataclass

from ..foundation.settings import setting


METHODS = ("mean-difference", "probe-weights", "random")

RANKINGS = ("auc", "accuracy")

RANKS = ("probe", "causal")

FALSE_FIRES = 0.05
"""The share of the prompts to leave alone that a gate may let through."""


@dataclass(frozen=True)
class FitSettings:
    """How directions are fitted. The methods are the mean activation of label 1 minus that of label 0, the weights of
    the probes, or random directions (control). Heads are ranked by an out-of-fold score; ties go to the larger
    separation. To rank them by what they do, see `causal`. The null keeps the largest AUC over heads of each draw."""

    method: str = setting("mean-difference", ", ".join(METHODS))
    top_k: int | None = setting(
        48, "heads to steer (at most all of them), or 'cv' to choose by cross-validation", words={"cv": None}
    )
    rank_by: str = setting("auc", ", ".join(RANKINGS))
    folds: int = setting(5, "folds of the cross-validation")
    test_share: float = setting(0.2, "share of the groups to keep for the test")
    c: float = setting(1.0, "inverse L2 strength of the probes", flags=("--c",))
    balanced: bool = setting(False, "weigh classes inversely to their frequency")
    permutations: int = setting(100, "draws of the permutation null; 0 skips it", min=0, metavar="N")
    seed: int = setting(0, "seed of all random draws")
    rank: str = setting("probe", "rank heads by what they read (probe) or by what they do (causal)")

    def __post_init__(self):
        for name, known in (("method", METHODS), ("rank_by", RANKINGS), ("rank", RANKS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}; expected 1 or more")
        if self.folds < 2:
            raise ValueError(f"folds is {self.folds}; expected 2 or more")
        if not 0 < self.test_share < 1:
            raise ValueError(f"test_share is {self.test_share:g}; expected a share between 0 and 1")
