"""How directions are fitted."""

from dataclasses import dataclass


METHODS = ("mean-difference", "probe-weights", "random")


RANKINGS = ("auc", "accuracy")


RANKS = ("probe", "causal")


@dataclass(frozen=True)
class FitSettings:
    """How directions are fitted.

    method: "mean-difference" (mean activation of label 1 minus that of label 0), "probe-weights" or "random"
    (control). top_k: heads to keep, at most those there are; None chooses it by cross-validation. rank_by: the
    out-of-fold score that ranks the heads, "auc" or "accuracy". Ties go to the larger separation. test_share: share of
    the groups held out for the test scores. folds: of the cross-validation on the others. c, balanced: of the logistic
    probes, see `fit_probes`. rank: what the heads are ranked by, the probes, or what they do (`causal`).
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
    rank: str = "probe"

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
