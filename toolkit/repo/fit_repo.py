"""Make a steered repo from a Llama checkpoint and a labelled set: record activations, fit, write."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from iti_llama import ITIDirections, ITILlamaConfig, ITILlamaForCausalLM

from ..data.labelled_set import Example, LabelledSet, read_examples
from ..fit.activation_cache import processes
from ..fit.causal import by_cause, causal_effects
from ..fit.figures import figures
from ..fit.fit_directions import fit, to_directions
from ..fit.gate import fit_gate
from ..fit.positions import Policy, fits
from ..fit.record_activations import capture
from ..fit.report import report, write_report
from ..fit.settings import FitSettings
from ..foundation.files import folder_of, write_text
from ..foundation.tokenize import chat_prompt
from ..measure.keep_labelled_set import keep
from .base_weights import weights_of
from .card import renew_card, write_card
from .folder import check_out, copy_tokenizer, new_folder
from .licence import base_license


def load_base(
    base: str | os.PathLike, revision: str | None = None, dtype: str = "auto", **kwargs
) -> tuple[ITILlamaForCausalLM, PreTrainedTokenizerBase]:
    """A Llama that is not steered yet, and its tokenizer: a plain one in adapter form, or the one inside a
    self-contained steered model.

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
        model = ITILlamaForCausalLM.from_pretrained(
            base, iti_directions_file=None, iti_top_k=None, iti_behaviours={}, **kwargs
        )
    else:
        model = ITILlamaForCausalLM.from_base(base, None, **kwargs)
    return model.eval(), AutoTokenizer.from_pretrained(base, **hub, trust_remote_code=False)


def read_for(
    base: str | os.PathLike,
    data: str | os.PathLike,
    revision: str | None = None,
    mapping: Mapping[str, str] | None = None,
) -> LabelledSet:
    """A labelled set, its prompts and messages as the base is given them: through its chat template, if it has one.
    `mapping`: see `read_examples`.

    Raises:
        FileNotFoundError, ValueError: as `read_examples`; if the base has no tokenizer.
    """
    if not Path(data).is_file():
        raise FileNotFoundError(f"{data}: no such file; expected a labelled set, JSON Lines")
    folder_of(base, "base ")
    hub = {"revision": revision} if revision else {}
    tokenizer = AutoTokenizer.from_pretrained(base, **hub, trust_remote_code=False)
    return read_examples(data, partial(chat_prompt, tokenizer), mapping)


def readable(
    examples: Sequence[Example], policy: Policy, base: str | os.PathLike, revision: str | None = None
) -> list[Example]:
    """The examples that the base model reads whole."""
    hub = {"revision": revision} if revision else {}
    tokenizer = AutoTokenizer.from_pretrained(base, **hub, trust_remote_code=False)
    longest = AutoConfig.from_pretrained(base, **hub, trust_remote_code=False).max_position_embeddings
    return [example for example in examples if fits(example, policy, tokenizer, longest)]


@dataclass(frozen=True)
class Gating:
    """When to steer: a labelled set of prompts to act on (label 1) and to leave alone, see `fit_gate`."""

    examples: Sequence[Example]
    dataset: str = ""
    false_fires: float = 0.05
    ramp: bool = False


def _held(out: str | os.PathLike, name: str, overwrite: bool) -> ITILlamaConfig:
    """The config of the repo that gets a further behaviour. Raises `FileNotFoundError`, `FileExistsError` or
    `ValueError` where it cannot."""
    path = Path(out, "config.json")
    if not path.is_file():
        raise FileNotFoundError(f"{out}: no config.json; a further behaviour is put beside those of a steered repo")
    config = ITILlamaConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
    if name in config.iti_others and not overwrite:
        raise FileExistsError(f"{out}: has a behaviour {name!r}; choose another --name, or pass --overwrite")
    if name in (config.iti_name, "default"):
        raise ValueError(f"--name is {name!r}, that of the repo's own directions; expected another")
    entries = config.iti_behaviours | {name: {"file": f"iti_directions.{name}.safetensors"}}
    ITILlamaConfig(iti_directions_file=config.iti_directions_file, iti_behaviours=entries)  # refuses a wrong name
    return config


def _add(
    folder: Path, name: str, config: ITILlamaConfig, directions: ITIDirections, alpha: float, found: dict
) -> None:
    """Put a behaviour's files into a repo; the config, which names them, last."""
    own = ITIDirections.load(folder / config.iti_directions_file)
    if own.base_model != directions.base_model:
        raise ValueError(f"{folder} steers {own.base_model!r}, not {directions.base_model!r}: pass its base as --base")
    directions.check_geometry(config, name)
    directions.save(folder / f"iti_directions.{name}.safetensors")
    write_report(found, folder / f"iti_report.{name}.json")
    fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    entry = {"file": f"iti_directions.{name}.safetensors", "alpha": alpha, "top_k": None}
    fields["iti_behaviours"] = (fields.get("iti_behaviours") or {}) | {name: entry}
    write_text(folder / "config.json", json.dumps(fields, indent=2, sort_keys=True) + "\n")
    renew_card(folder)


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
    about: dict[str, str] | None = None,
    record: dict | None = None,
    gate: Gating | None = None,
    name: str | None = None,
    progress: Callable[[str, int | None], None] = lambda step, rows: None,
) -> dict:
    """Capture, fit, and write a repo to `out`: code, config, directions, tokenizer, report, figures, card; the weights
    too if `self_contained`. The labelled set is kept there as well, with its parts, for measuring; `push` leaves it
    out. Returns the report. `base_name` is what the files call the base, `left_out` counts rows that were too long,
    `about` is what the card says besides: "behaviour", "language", "hub_dataset"; `record` goes into the report.
    `gate`: when to steer, see `fit_gate`. With `name` the repo in `out`, which is there, gets the directions as a
    further behaviour of that name: it keeps what it has, and its card is renewed.

    Raises:
        ValueError: for a base or data that cannot be used, before anything is written.
        FileExistsError: see `new_folder`.
    """
    held = None if name is None else _held(out, name, overwrite)
    if held is None:
        check_out(out, overwrite)
    base, state = os.fspath(base), processes()
    is_dir = os.path.isdir(base)
    called = base_name or (Path(base).resolve().name if is_dir else base)
    device_map = {"": state.process_index} if state.num_processes > 1 and state.device.type == "cuda" else device_map
    if state.num_processes > 1 and state.device.type == "cpu":
        device_map = "cpu"
    model, tokenizer = load_base(base, revision, dtype, device_map=device_map)
    if held is None and model.config.base_model_name_or_path is None and not self_contained:
        raise ValueError(f"base {base}: is a steered model, so no adapter can name it; pass --self-contained")
    activations = capture(
        model, tokenizer, examples, policy, batch_size, cache, progress=lambda rows: progress("capture", rows)
    )
    if not state.is_main_process:
        return {}
    found = fit(activations, examples, policy, settings, progress=lambda step: progress(step, None))
    if settings.rank != "probe":
        step = partial(progress, "what the heads do")
        effects = causal_effects(model, tokenizer, examples, found, scope, batch_size, step)
        found = by_cause(found, effects, examples, settings)
    directions = to_directions(found, activations, examples, policy, called, dataset)
    if about:
        directions = replace(directions, provenance=directions.provenance | about)
    extra = {"alpha": alpha, "scope": scope, "left_out": left_out, "about": about or {}}
    extra |= {"base_license": found_license} if (found_license := is_dir and base_license(base)) else {}
    extra |= {"base_weights": weights} if (weights := is_dir and weights_of(base)) else {}
    extra |= record or {}
    if gate is not None:
        progress("gate", None)
        fitted, extra["gate"] = fit_gate(model, tokenizer, gate.examples, gate.false_fires, gate.ramp, settings.seed)
        told = {"gate_dataset": gate.dataset, "gate_dataset_sha256": extra["gate"]["data_sha256"]}
        directions = replace(directions, gate=fitted, provenance=directions.provenance | told)
    result = report(found, examples, policy, activations, called, extra)

    progress("writing", None)
    if held is not None:
        _add(Path(out), name, held, directions, alpha, result)
        return result
    model.set_iti_directions(directions)
    model.iti_alpha, model.iti_scope = alpha, scope
    if self_contained:
        model.config.base_model_name_or_path = model.config.base_model_revision = None
    with new_folder(out, overwrite) as folder:
        model.save_pretrained(folder)
        copy_tokenizer(base, folder, **({"revision": revision} if revision else {}))
        write_report(result, folder / "iti_report.json")
        figures(found, examples, activations, folder / "figures")
        keep(examples, found.test, settings.seed, folder)
        write_card(folder, None if is_dir else base)
    return result
