"""Ways of steering a Llama by given offsets, each as its documentation describes it; peers.py measures them.

They read the folder that side_by_side.py makes: `plain` (a Llama), `offsets.npz` ({layer: the offset at the input of
o_proj, at alpha 1}) and `vectors.npz` (the same after o_proj).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaForCausalLM


def loaded(folder: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(folder / "plain").eval()


def offsets(folder: Path, name: str = "offsets") -> dict[int, torch.Tensor]:
    with np.load(folder / f"{name}.npz") as held:
        return {int(layer): torch.from_numpy(held[layer]) for layer in held.files}


def settings(ids: torch.Tensor, new: int, more: dict) -> dict:
    fixed = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
    return {"attention_mask": torch.ones_like(ids)} | fixed | more


def hf_generate(model, ids: torch.Tensor, new: int, **more) -> torch.Tensor:
    return model.generate(ids, **settings(ids, new, more))


@dataclass
class Way:
    """A steered model. generate(ids, new, **more): tokens [rows, prompt + new], steered at alpha 1, everywhere; a way
    that offers a strength for each row, or the scope "generated", takes `rows` or `scope`. forward(ids): one pass.
    strengthen(alpha): sets another strength, if a loaded model can change it."""

    generate: Callable
    forward: Callable | None = None
    strengthen: Callable | None = None


def called(model) -> dict[str, Callable]:
    """`generate` and `forward` of a way whose model is used like one of transformers."""
    return {
        "generate": lambda ids, new, **more: hf_generate(model, ids, new, **more),
        "forward": lambda ids: model(ids, use_cache=False).logits,
    }


def plain_again(folder: Path) -> Way:
    return Way(**called(loaded(folder)))


def of_model(model) -> Way:
    """A steered model of ours."""

    def generate(ids, new, rows=None, scope="all", **more):
        model.iti_scope = scope
        return hf_generate(model, ids, new, **more, **({} if rows is None else {"iti_alpha": rows}))

    return Way(**called(model) | {"generate": generate}, strengthen=model.set_iti_alpha)


def iti_llama(folder: Path) -> Way:
    from iti_llama import ITILlamaForCausalLM

    return of_model(ITILlamaForCausalLM.from_pretrained(folder / "steered").eval())


def baked(folder: Path) -> Way:
    return Way(**called(LlamaForCausalLM.from_pretrained(folder / "baked").eval()))


def peft(folder: Path) -> Way:
    from peft import PeftModel

    return Way(**called(PeftModel.from_pretrained(loaded(folder), folder / "peft").eval()))


def hooks(folder: Path) -> Way:
    model, handles = loaded(folder), []

    def strengthen(alpha):
        while handles:
            handles.pop().remove()
        for layer, offset in offsets(folder).items():
            o_proj = model.model.layers[layer].self_attn.o_proj
            shift = lambda module, inputs, offset=alpha * offset: (inputs[0] + offset,)  # noqa: E731
            handles.append(o_proj.register_forward_pre_hook(shift))

    strengthen(1.0)
    return Way(**called(model), strengthen=strengthen)


def pyvene(folder: Path) -> Way:
    import pyvene as pv

    def add(offset):
        return lambda base, source: base + offset

    parts = [
        {"component": f"model.layers[{layer}].self_attn.o_proj.input", "intervention": add(offset)}
        for layer, offset in offsets(folder).items()
    ]
    model = pv.IntervenableModel(parts, model=loaded(folder))

    def generate(ids, new, **more):
        given = settings(ids, new, more)
        base = {"input_ids": ids, "attention_mask": given.pop("attention_mask")}
        return model.generate(base, unit_locations=None, intervene_on_prompt=True, **given)[1]

    return Way(generate, lambda ids: model({"input_ids": ids})[1].logits)


def steering_vectors(folder: Path) -> Way:
    from steering_vectors import SteeringVector

    model = loaded(folder)
    vector = SteeringVector(layer_activations=offsets(folder, "vectors"), layer_type="self_attn")

    strength = {"multiplier": 1.0}

    def generate(ids, new, **more):
        with vector.apply(model, **strength):
            return hf_generate(model, ids, new, **more)

    def forward(ids):
        with vector.apply(model, **strength):
            return model(ids, use_cache=False).logits

    return Way(generate, forward, lambda alpha: strength.update(multiplier=alpha))


def repeng(folder: Path) -> Way:
    from repeng import ControlModel

    given = offsets(folder, "vectors")
    model = ControlModel(loaded(folder), list(given))
    model.set_raw_control(given)

    def strengthen(alpha):
        model.set_raw_control({layer: alpha * vector for layer, vector in given.items()})

    return Way(**called(model), strengthen=strengthen)


def nnsight(folder: Path) -> Way:
    """Steers by an edit that stays."""
    from nnsight import TransformersModel

    model = TransformersModel(str(folder / "plain"), task="text-generation", dispatch=True)
    given = dict(sorted(offsets(folder).items()))  # in the order in which they run

    def strengthen(alpha):
        model.clear_edits()
        with model.edit(inplace=True) as tracer:
            for _ in tracer.iter[:]:
                for layer, offset in given.items():
                    model.model.layers[layer].self_attn.o_proj.input += alpha * offset

    def forward(ids):
        with model.trace(ids, use_cache=False):
            logits = model.output.logits.save()
        return logits

    strengthen(1.0)
    return Way(lambda ids, new, **more: model.generate(ids, **settings(ids, new, more)), forward, strengthen)


def transformer_lens(folder: Path) -> Way:
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(str(folder / "plain"), device="cpu")

    def strengthen(alpha):
        bridge.reset_hooks()
        for layer, offset in offsets(folder).items():
            heads = (alpha * offset).reshape(bridge.cfg.n_heads, -1)
            bridge.add_hook(f"blocks.{layer}.attn.hook_z", lambda z, hook, heads=heads: z + heads)

    def generate(ids, new, **more):
        given = settings(ids, new, more)
        return bridge.hf_generate(ids, use_past_kv_cache=given.pop("use_cache", True), **given)

    strengthen(1.0)
    return Way(generate, bridge, strengthen)


def by_heads(folder: Path) -> dict[tuple[int, int], torch.Tensor]:
    """{(layer, head): offset}, for the heads whose offset is not zero."""
    from transformers import AutoConfig

    width = AutoConfig.from_pretrained(folder / "plain").head_dim
    given = offsets(folder).items()
    return {(layer, head): row for layer, o in given for head, row in enumerate(o.reshape(-1, width)) if row.any()}


def repsteer(folder: Path) -> Way:
    import repsteer as rs

    model = rs.models.from_pretrained(str(folder / "plain"))
    heads = by_heads(folder)
    sizes = [row.norm().item() for row in heads.values()]
    directions = torch.stack(list(heads.values())) / torch.tensor(sizes)[:, None]
    found = [rs.ITIHead(rank, *where, 1.0, size) for rank, (where, size) in enumerate(zip(heads, sizes, strict=True))]
    profile = rs.ITIArtifact(rs.ArtifactMetadata(), directions, found)
    steered = {}

    def strengthen(alpha):
        plan = rs.recipes.iti(profile, strength=alpha, positions=rs.positions.AllTokens(), phase="both")
        steered["plan"] = model.compile(plan, compatibility="dimension")

    def generate(ids, new, **more):
        with model.steer(**steered):
            return model.generate(ids, **settings(ids, new, more)).token_ids

    def forward(ids):
        with model.steer(**steered):
            return model.forward(ids, use_cache=False).logits

    strengthen(1.0)
    return Way(generate, forward, strengthen)


def aisteer360(folder: Path) -> Way:
    from aisteer360.algorithms.core.steering_pipeline import SteeringPipeline
    from aisteer360.algorithms.state_control._common.steering_vector import SteeringVector
    from aisteer360.algorithms.state_control.iti import ITI

    heads = by_heads(folder)
    width = len(next(iter(heads.values())))
    rows = {layer: offset.reshape(-1, width) for layer, offset in offsets(folder).items()}
    vector = SteeringVector("llama", rows, num_heads=len(next(iter(rows.values()))), head_dim=width)
    iti = ITI(steering_vector=vector, selected_heads=list(heads), alpha=1.0, token_scope="all")
    pipeline = SteeringPipeline(str(folder / "plain"), controls=[iti], device="cpu")
    pipeline.steer()

    def generate(ids, new, **more):
        return pipeline.generate(input_ids=ids, return_full_sequence=True, **settings(ids, new, more))

    def strengthen(alpha):  # the pipeline's steer() works only once; the control's makes a new transform
        iti.alpha = alpha
        iti.steer(pipeline.model, tokenizer=pipeline.tokenizer)

    return Way(generate, None, strengthen)


def saklas_offsets(folder: Path) -> Way:
    """Puts the hooks of its compiled path on o_proj: its documented API adds rescaled vectors after whole blocks."""
    from saklas.core.hooks import install_persistent_offset_hooks

    model, given = loaded(folder), offsets(folder, "vectors")
    places = torch.nn.ModuleList(model.model.layers[layer].self_attn.o_proj for layer in given)
    buffers, _ = install_persistent_offset_hooks(places, model.config.hidden_size, model.device, model.dtype)

    def strengthen(alpha):
        for buffer, vector in zip(buffers.values(), given.values(), strict=True):
            buffer.copy_(alpha * vector)

    strengthen(1.0)
    return Way(**called(model), strengthen=strengthen)


WAYS = {
    "plain again": plain_again, "iti-llama": iti_llama, "baked": baked, "peft": peft, "hooks": hooks, "pyvene": pyvene,
    "steering-vectors": steering_vectors, "repeng": repeng, "nnsight": nnsight, "transformer-lens": transformer_lens,
    "repsteer": repsteer, "aisteer360": aisteer360, "saklas": saklas_offsets,
}  # fmt: skip


# Each fits heads on labelled texts as documented, and returns the seconds of the fit, without loading the model.


def fit_iti_llama(folder: Path, texts: list[str], labels: list[int], heads: int, **more) -> float:
    from iti_llama.toolkit.data.labelled_set import Example
    from iti_llama.toolkit.fit.fit_directions import fit
    from iti_llama.toolkit.fit.positions import Policy
    from iti_llama.toolkit.fit.record_activations import capture
    from iti_llama.toolkit.fit.settings import FitSettings
    from iti_llama.toolkit.repo.fit_repo import load_base

    model, tokenizer = load_base(folder / "plain", dtype="float32")
    pairs = enumerate(zip(texts, labels, strict=True))
    rows = [Example("", text, label, group=str(row // 2)) for row, (text, label) in pairs]
    begin, policy = time.perf_counter(), Policy.parse("last")
    fit(capture(model, tokenizer, rows, policy), rows, policy, FitSettings(top_k=heads, **more))
    return time.perf_counter() - begin


def fit_repsteer(folder: Path, texts: list[str], labels: list[int], heads: int) -> float:
    import repsteer as rs

    model = rs.models.from_pretrained(str(folder / "plain"))
    true, false = ([text for text, label in zip(texts, labels, strict=True) if label == own] for own in (1, 0))
    begin = time.perf_counter()
    rs.learners.ITI(top_k=heads).fit(model, rs.data.ContrastivePairs.from_groups(true, false))
    return time.perf_counter() - begin


def fit_aisteer360(folder: Path, texts: list[str], labels: list[int], heads: int) -> float:
    from aisteer360.algorithms.core.internals.data import LabeledExamples
    from aisteer360.algorithms.core.steering_pipeline import SteeringPipeline
    from aisteer360.algorithms.state_control.iti import ITI

    true, false = ([text for text, label in zip(texts, labels, strict=True) if label == own] for own in (1, 0))
    iti = ITI(data=LabeledExamples(positives=true, negatives=false), num_heads=heads)
    pipeline = SteeringPipeline(str(folder / "plain"), controls=[iti], device="cpu")
    begin = time.perf_counter()
    pipeline.steer()
    return time.perf_counter() - begin


FITS = {
    "iti-llama": fit_iti_llama,
    "iti-llama --permutations 0": partial(fit_iti_llama, permutations=0),
    "repsteer": fit_repsteer,
    "aisteer360": fit_aisteer360,
}
