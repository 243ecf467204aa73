"""Make a steered repo from a Llama checkpoint and a labelled set: record activations, fit, write."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from iti_llama import ITILlamaForCausalLM
from iti_llama.configuration_iti_llama import pinned

from ..data.labelled_row import parse_mapping
from ..data.labelled_set import Example, LabelledSet, read_examples
from ..fit.activation_cache import processes
from ..fit.causal import by_cause, causal_effects
from ..fit.figures import figures
from ..fit.fit_directions import fit, to_directions
from ..fit.gate import fit_gate
from ..fit.positions import Policy, fits
from ..fit.record_activations import capture
from ..fit.report import report, write_report
from ..foundation.files import folder_of
from ..foundation.tokenize import chat_prompt
from ..measure.keep_labelled_set import keep_labelled_set
from .base_weights import weights_of
from .card import check_card, renew_card, write_card
from .folder import check_out, copy_tokenizer, new_folder
from .licence import base_license
from .settings import Gating, RepoSettings
from .steered_repo import SteeredRepo


def base_tokenizer(base: str | os.PathLike, hub: dict[str, str]) -> PreTrainedTokenizerBase:
    """The base's tokenizer, before its weights. Raises `OSError`, naming the base, if there is none."""
    folder = folder_of(base, "base ")
    if folder is not None and not (folder / "config.json").is_file():
        raise FileNotFoundError(f"base {base}: no config.json in it; expected the folder of a Llama")
    try:
        return AutoTokenizer.from_pretrained(base, **hub, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise OSError(f"base {base}: its tokenizer cannot be read: {error}") from error


def load_base(
    base: str | os.PathLike, hub: dict[str, str] | None = None, **kwargs
) -> tuple[ITILlamaForCausalLM, PreTrainedTokenizerBase]:
    """A Llama that is not steered yet, and its tokenizer: a plain one in adapter form, or the one inside a
    self-contained steered model. `hub`: its revision; `kwargs` are those of `from_pretrained`.

    Raises:
        ValueError: if it is not a Llama, or is itself an adapter form.
    """
    named, kwargs = (hub or {}).get("revision"), {"dtype": "auto"} | kwargs
    hub = pinned(base, hub or {})  # everything is read at one commit
    fields, _ = PretrainedConfig.get_config_dict(base, **hub)
    if fields.get("model_type") == "iti_llama":
        inner = fields.get("base_model_name_or_path")
        if inner is not None:
            raise ValueError(f"base {base}: is itself a steered model without weights; use its base, {inner}")
        plain = {"iti_directions_file": None, "iti_top_k": None, "iti_behaviours": {}}
        model = ITILlamaForCausalLM.from_pretrained(base, **plain, **hub, **kwargs)
    else:
        model = ITILlamaForCausalLM.from_base(base, None, **hub, **kwargs)
        model.config.base_model_revision = named
    return model.eval(), AutoTokenizer.from_pretrained(base, **hub, trust_remote_code=False)


def read_for(
    base: str | os.PathLike,
    data: str | os.PathLike,
    revision: str | None = None,
    mapping: str | None = None,
    raw: bool = False,
    system: str | None = None,
) -> LabelledSet:
    """A labelled set, with its prompts and messages as the base gets them: through its chat template, if it has one
    and they are not `raw`, with a `system` message before those without one. `mapping`: "ROLE=FIELD,...", see
    `parse_mapping`.

    Raises:
        FileNotFoundError, ValueError: as `read_examples`, or if the base has no tokenizer.
    """
    roles = parse_mapping(mapping)
    if not Path(data).is_file():
        raise FileNotFoundError(f"{data}: no such file; expected a labelled set, JSON Lines")
    tokenizer = base_tokenizer(base, {"revision": revision} if revision else {})
    return read_examples(data, partial(chat_prompt, tokenizer, raw=raw), roles, system)


ANSWER_TOKENS = 512
"""The length of an answer, if a chat model's generation config does not set it: transformers' default is 20."""


def drop_long(settings: RepoSettings, examples: Sequence[Example]) -> list[Example]:
    """The examples that the base model can read whole."""
    tokenizer = base_tokenizer(settings.base, settings.hub)
    config = AutoConfig.from_pretrained(settings.base, **settings.hub, trust_remote_code=False)
    policy, longest = Policy.parse(settings.policy), config.max_position_embeddings
    policy.check(examples)
    return [example for example in examples if fits(example, policy, tokenizer, longest)]


def fit_repo(
    settings: RepoSettings,
    examples: Sequence[Example],
    out: str | os.PathLike,
    *,
    overwrite: bool = False,
    dataset: str = "",
    left_out: int = 0,
    record: dict | None = None,
    gate: Gating | None = None,
    name: str | None = None,
    progress: Callable[[str, int | None], None] = lambda step, rows: None,
    loaded: Callable[[ITILlamaForCausalLM, PreTrainedTokenizerBase], None] = lambda model, tokenizer: None,
) -> dict:
    """Capture, fit, and write a repo to `out`: code, config, directions, tokenizer, report, figures, card; the weights
    too if self-contained. The labelled set is kept there as well, with its parts, for measuring; `push` leaves it out.
    Returns the report. `dataset` is the name of the set, `left_out` counts rows that were too long, `record` goes into
    the report. `gate`: when to steer, see `fit_gate`. With `name` the repo that is already in `out` gets the
    directions as a further behaviour of that name; it keeps the rest, and its card is renewed. `loaded` is called with
    the base before the work.

    Raises:
        ValueError: for a base or data that cannot be used, before anything is written.
        FileExistsError: see `new_folder`.
    """
    if name is None:
        check_out(out, overwrite)
    else:
        check_card(Path(out))
        steered = SteeredRepo.open(out)
        steered.check_addition(name, overwrite)
    policy, fitting, workers = Policy.parse(settings.policy), settings.fitting, processes()
    policy.check(examples)
    placed = settings.placement.kwargs
    if workers.num_processes > 1:
        own_gpu = {"": workers.process_index}
        placed["device_map"] = own_gpu if workers.device.type == "cuda" else "cpu"
    model, tokenizer = load_base(settings.base, settings.hub, **placed)
    if name is None:
        check_base(settings, model)
    if workers.is_main_process:
        loaded(model, tokenizer)
    activations = capture(
        model, tokenizer, examples, policy, settings.batch_size, settings.cache,
        progress=lambda rows: progress("capture", rows),
    )  # fmt: skip
    if not workers.is_main_process:
        return {}
    heads = fit(activations, examples, policy, fitting, progress=lambda step: progress(step, None))
    if fitting.rank == "causal":
        step = partial(progress, "what the heads do")
        effects = causal_effects(model, tokenizer, examples, heads, settings.scope, settings.batch_size, step)
        heads = by_cause(heads, effects)
    base_name = name_of_base(settings)
    directions = to_directions(heads, activations, examples, policy, base_name, dataset)
    directions = replace(directions, provenance=directions.provenance | settings.about)
    extra = about_repo(settings) | {"left_out": left_out} | (record or {})
    if gate is not None:
        progress("gate", None)
        gate_of_heads, extra["gate"] = fit_gate(model, tokenizer, gate.examples, gate.false_fires, fitting.seed)
        made_of = {"gate_dataset": gate.dataset, "gate_dataset_sha256": extra["gate"]["data_sha256"]}
        directions = replace(directions, gate=gate_of_heads, provenance=directions.provenance | made_of)
    result = report(heads, examples, policy, activations, base_name, extra)

    progress("writing", None)
    if name is not None:
        steered.add(name, directions, settings.alpha)
        write_report(result, Path(out, f"iti_report.{name}.json"))
        renew_card(Path(out))
        return result

    def beside(folder: Path) -> None:
        figures(heads, examples, activations, folder / "figures")
        keep_labelled_set(examples, heads.test, fitting.seed, folder)

    model.set_iti_directions(directions)
    write_repo(settings, model, tokenizer, result, out, beside, overwrite)
    return result


def name_of_base(settings: RepoSettings) -> str:
    """What the files call the base."""
    base = os.fspath(settings.base)
    return settings.base_name or (Path(base).resolve().name if os.path.isdir(base) else base)


def check_base(settings: RepoSettings, model: ITILlamaForCausalLM) -> None:
    """Raises `ValueError` if the base is a steered model with weights, and the repo is to be an adapter."""
    if model.config.base_model_name_or_path is None and not settings.self_contained:
        raise ValueError(f"base {settings.base}: is a steered model, so no adapter can name it; pass --self-contained")


def about_repo(settings: RepoSettings) -> dict:
    """What a report says of a repo beside its fit."""
    base, about = os.fspath(settings.base), {"alpha": settings.alpha, "scope": settings.scope, "about": settings.about}
    if os.path.isdir(base):
        found = {"base_license": base_license(base), "base_weights": weights_of(base)}
        about |= {name: value for name, value in found.items() if value}
    return about


def write_repo(
    settings: RepoSettings,
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    report: dict,
    out: str | os.PathLike,
    beside: Callable[[Path], None],
    overwrite: bool = False,
) -> None:
    """Write a repo of the model, which holds its directions, at the settings' strength and scope: code, config,
    directions, tokenizer, report and card, and the weights if self-contained. `beside` writes what else belongs into
    the folder."""
    model.iti_alpha, model.iti_scope = settings.alpha, settings.scope
    if settings.self_contained:
        model.config.base_model_name_or_path = model.config.base_model_revision = None
    if tokenizer.chat_template and model.generation_config.max_new_tokens is None:
        model.generation_config.max_new_tokens = ANSWER_TOKENS
    base = os.fspath(settings.base)
    with new_folder(out, overwrite) as folder:
        model.save_pretrained(folder)
        copy_tokenizer(base, folder, **settings.hub)
        write_report(report, folder / "iti_report.json")
        beside(folder)
        write_card(folder, None if os.path.isdir(base) else base)
