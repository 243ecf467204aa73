"""Make a steered repo from a Llama checkpoint and a labelled set: capture, fit, write."""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase
from transformers.utils import cached_file

from iti_llama import ITIDirections, ITILlamaForCausalLM

from .capture import Activations, Policy, capture, fits, processes
from .card import card
from .examples import Example, checksum, write_text
from .fit import Fit, FitSettings, fit
from .report import figures, report, write_report
from .version import __version__


TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "tokenizer.model",
)


def load_base(
    base: str | os.PathLike, revision: str | None = None, dtype: str = "auto", **kwargs
) -> tuple[ITILlamaForCausalLM, PreTrainedTokenizerBase]:
    """A Llama that is not steered yet, and its tokenizer: a plain one in adapter form, or the one inside a self-contained
    steered model.

    Raises:
        ValueError: if it is no Llama, or is itself an adapter form.
    """
    kwargs |= {"dtype": dtype} | ({"revision": revision} if revision else {})
    hub = {"revision": revision} if revision else {}
    fields, _ = PretrainedConfig.get_config_dict(base, **hub)
    if fields.get("model_type") == "iti_llama":
        inner = fields.get("base_model_name_or_path")
        if inner is not None:
            raise ValueError(f"base {base}: is itself a steered model without weights; use its base, {inner}")
        model = ITILlamaForCausalLM.from_pretrained(base, iti_directions_file=None, iti_top_k=None, **kwargs)
    else:
        model = ITILlamaForCausalLM.from_base(base, None, **kwargs)
    return model.eval(), AutoTokenizer.from_pretrained(base, **hub)


def readable(
    examples: Sequence[Example], policy: Policy, base: str | os.PathLike, revision: str | None = None
) -> list[Example]:
    """The examples that the base model reads whole."""
    hub = {"revision": revision} if revision else {}
    tokenizer = AutoTokenizer.from_pretrained(base, **hub)
    longest = AutoConfig.from_pretrained(base, **hub).max_position_embeddings
    return [example for example in examples if fits(example, policy, tokenizer, longest)]


def to_directions(
    found: Fit, activations: Activations, examples: Sequence[Example], policy: Policy, base: str, dataset: str
) -> ITIDirections:
    """The directions of the best-ranked heads of a fit, with where they come from."""
    layers, heads, head_dim = activations.heads.shape[1:]
    chosen = torch.from_numpy(found.ranking[: found.top_k].copy())
    settings = found.settings
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
            "ranked_by": f"out-of-fold {settings.rank_by}, {settings.folds} folds by group",
            "sigma_ddof": "0",
            "seed": str(settings.seed),
            "supported": {True: "yes", False: "no", None: "not tested"}[found.supported],
            "tool": f"iti-llama {__version__}",
        },
    )


def check_out(out: str | os.PathLike, overwrite: bool = False) -> None:
    """Refuse to write a repo where it would destroy something. To be called before the work as well as after it.

    Raises:
        FileExistsError: if `out` is a file, or a folder that is not empty; with `overwrite`, unless it is a steered repo and no
            git checkout.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out}: is a file; expected a folder, or nothing")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not overwrite:
        raise FileExistsError(f"{out}: is not empty; choose another --out, or pass --overwrite")
    config = out / "config.json"
    ours = config.is_file() and '"iti_llama"' in config.read_text(encoding="utf-8", errors="replace")
    if not ours or (out / ".git").exists():
        raise FileExistsError(
            f"{out}: is no folder that holds a steered repo alone, so it is not overwritten; choose another --out"
        )


@contextmanager
def new_folder(out: str | os.PathLike, overwrite: bool = False):
    """A temporary folder that becomes `out` when the block ends well, and is gone when it does not; then `out` is as it was.

    Raises:
        FileExistsError: see `check_out`.
    """
    check_out(out, overwrite)
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as holder:
        fresh, old = Path(holder, "new"), Path(holder, "old")
        fresh.mkdir()
        yield fresh
        if out.exists():
            os.replace(out, old)
        try:
            os.replace(fresh, out)
        except BaseException:
            if old.exists():
                os.replace(old, out)
            raise


def copy_tokenizer(base: str | os.PathLike, folder: Path, **hub) -> None:
    """The base's own tokenizer files, byte for byte: whichever version of transformers wrote them will read them."""
    for name in TOKENIZER_FILES:
        path = cached_file(base, name, _raise_exceptions_for_missing_entries=False, **hub)
        if path is not None:
            shutil.copyfile(path, folder / name)


def fit_repo(
    base: str | os.PathLike,
    examples: Sequence[Example],
    out: str | os.PathLike,
    *,
    policy: Policy,
    settings: FitSettings,
    alpha: float = 1.0,
    scope: str = "all",
    self_contained: bool = False,
    overwrite: bool = False,
    revision: str | None = None,
    dtype: str = "auto",
    device_map: str = "auto",
    batch_size: int = 32,
    cache: str | os.PathLike | None = None,
    base_name: str | None = None,
    dataset: str = "",
    left_out: int = 0,
    progress: Callable[[str, int | None], None] = lambda step, rows: None,
) -> dict:
    """Capture, fit, and write a repo to `out`: code, config, directions, tokenizer, report, figures, card; the weights too
    if `self_contained`. Returns the report. `base_name` is what the files call the base, `left_out` counts rows that
    were too long.

    Raises:
        ValueError: for a base or data that cannot be used, before anything is written.
        FileExistsError: see `new_folder`.
    """
    check_out(out, overwrite)
    base, state = os.fspath(base), processes()
    is_dir = os.path.isdir(base)
    name = base_name or (Path(base).resolve().name if is_dir else base)
    device_map = {"": state.process_index} if state.num_processes > 1 and state.device.type == "cuda" else device_map
    if state.num_processes > 1 and state.device.type == "cpu":
        device_map = "cpu"
    model, tokenizer = load_base(base, revision, dtype, device_map=device_map)
    if model.config.base_model_name_or_path is None and not self_contained:
        raise ValueError(f"base {base}: is a steered model, so no adapter can name it; pass --self-contained")
    activations = capture(
        model, tokenizer, examples, policy, batch_size, cache, progress=lambda rows: progress("capture", rows)
    )
    if not state.is_main_process:
        return {}
    found = fit(activations, examples, policy, settings, progress=lambda step: progress(step, None))
    directions = to_directions(found, activations, examples, policy, name, dataset)
    result = report(found, examples, policy, activations, name, {"alpha": alpha, "scope": scope, "left_out": left_out})

    progress("writing", None)
    model.set_iti_directions(directions)
    model.iti_alpha, model.iti_scope = alpha, scope
    if self_contained:
        model.config.base_model_name_or_path = model.config.base_model_revision = None
    with new_folder(out, overwrite) as folder:
        model.save_pretrained(folder)
        copy_tokenizer(base, folder, **({"revision": revision} if revision else {}))
        write_report(result, folder / "iti_report.json")
        figures(found, examples, activations, folder / "figures")
        write_text(folder / "README.md", card(model.config, directions, result, base=base if not is_dir else None))
    return result
