"""Measure what the directions of a repo do: for a repo from a stranger, before it is served."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from iti_llama import ITILlamaForCausalLM

from ..foundation.bound_memory import next_token_logs
from ..foundation.complete import complete
from ..foundation.hashing import fingerprint
from ..foundation.output_shift import output_shift
from ..foundation.package import ROOT
from ..foundation.strengths import strengths, ungated
from ..foundation.tokenize import chat_prompt, completion_ids, prompt_ids
from ..repo.info import overlap
from ..repo.steered_repo import SteeredRepo
from .read_requests import read_requests


ASKED = 24
"""How many requests the changes of likelihood are measured on."""

ANSWERED = 5

TOKENS = 8
"""How many rising tokens, and how many falling ones, are shown."""

ANSWER_TOKENS = 60


GEOMETRY = ("num_hidden_layers", "num_attention_heads", "head_dim")


@dataclass(frozen=True)
class Likelihood:
    """A token and its mean probability at the positions that were measured, plain and steered."""

    token: str
    plain: float
    steered: float


@dataclass(frozen=True)
class LayerTokens:
    """The tokens that a layer's shift raises most and lowers most, read off by the model's unembedding."""

    layer: int
    rises: list[str]
    falls: list[str]


@dataclass(frozen=True)
class Explanation:
    """rises, falls: tokens whose likelihood changes most, by forward passes along the plain answers to `n` requests,
    at the repo's strength. layers: see `LayerTokens`. answers: {"prompt", "plain", "steered"} of some requests.
    resembles: cosines of the shifts with those of other repos, {repo: {layer: cosine}}."""

    alpha: float
    n: int
    rises: list[Likelihood]
    falls: list[Likelihood]
    layers: list[LayerTokens]
    answers: list[dict]
    resembles: dict[str, dict[int, float]]

    def to_dict(self) -> dict:
        """As JSON types."""
        return asdict(self)


def explain_repo(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    others: Sequence[SteeredRepo] = (),
    progress: Callable[[str, int], None] = lambda step, rows: None,
) -> Explanation:
    """Measure what the directions of a loaded repo do at its strength.

    Raises:
        ValueError: if the strength is 0, or the directions of another repo have another geometry.
    """
    alpha = model.iti_alpha
    if alpha == 0:
        raise ValueError("iti_alpha is 0: nothing is steered, so there is nothing to explain; expected --alpha")
    for other in others:
        other.default_directions.check_geometry(model.config, other.opened.repo)
    few = [request for request in read_requests() if isinstance(request.written, str)]
    few = few[:: len(few) // ASKED][:ASKED]
    given = [chat_prompt(tokenizer, request.written) for request in few]
    plain = complete(model, tokenizer, given, [0.0] * len(given), max_new_tokens=ANSWER_TOKENS)
    progress("plain answers", len(given))
    steered = complete(model, tokenizer, given[:ANSWERED], [alpha] * ANSWERED, max_new_tokens=ANSWER_TOKENS)
    progress("steered answers", ANSWERED)
    before, after = mean_probabilities(model, tokenizer, given, plain, alpha, partial(progress, "likelihoods"))
    order = (after - before).argsort()

    def tokens(indices: torch.Tensor) -> list[Likelihood]:
        return [Likelihood(tokenizer.decode([i]), float(before[i]), float(after[i])) for i in indices.tolist()]

    return Explanation(
        alpha,
        len(given),
        tokens(order.flip(0)[:TOKENS]),
        tokens(order[:TOKENS]),
        layer_tokens(model, tokenizer),
        [
            {"prompt": request.words, "plain": one, "steered": other}
            for request, one, other in zip(few, plain, steered, strict=False)
        ],
        {other.opened.repo: resemblance(model, other) for other in others},
    )


@torch.no_grad()
def mean_probabilities(
    model: ITILlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    answers: Sequence[str],
    alpha: float,
    progress: Callable[[int], None] = lambda rows: None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """[vocabulary] each, plain and steered: the mean probability of every token as the next one, over the positions
    from the prompts' last tokens to the answers' ends."""
    device = model.get_input_embeddings().weight.device
    total, count = torch.zeros(2, model.config.vocab_size), 0
    for prompt, answer in zip(prompts, answers, strict=True):
        start = len(ids := prompt_ids(tokenizer, prompt))
        ids = (ids + completion_ids(tokenizer, answer))[: model.config.max_position_embeddings]
        call = {"input_ids": torch.tensor([ids, ids], device=device), "use_cache": False} | ungated(model)
        call["iti_alpha"] = strengths(model, [0.0, alpha])
        if model.iti_scope == "generated":
            call["iti_start"] = torch.tensor([start - 1] * 2, device=device)
        hidden = model.model(**call).last_hidden_state[:, start - 1 :]
        for _, logs in next_token_logs(model, hidden):
            total += logs.exp().sum(1).cpu()
        count += hidden.shape[1]
        progress(1)
    return (total / count).unbind()


@torch.no_grad()
def layer_tokens(model: ITILlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> list[LayerTokens]:
    """For each steered layer, the tokens that its shift, as it leaves the attention, raises and lowers most where it
    reaches the unembedding unchanged."""
    directions = model.iti_directions.top(model.iti_top_k)
    sign = 1 if model.iti_alpha > 0 else -1
    head, norm, rows = model.get_output_embeddings().weight, model.model.norm.weight, []
    for layer, offset in sorted(directions.offsets().items()):
        weight = model.model.layers[layer].self_attn.o_proj.weight
        shift = offset if directions.site == "residual" else output_shift(weight, offset.to(weight.device))
        logits = head.float() @ (norm.float() * shift.to(norm.device)).to(head.device) * sign
        order = logits.argsort().tolist()
        rises, falls = order[::-1][:TOKENS], order[:TOKENS]
        rows.append(LayerTokens(layer, *([tokenizer.decode([i]) for i in indices] for indices in (rises, falls))))
    return rows


def shipped_beside(model: ITILlamaForCausalLM, asked: str) -> list[SteeredRepo]:
    """The steered repos that this installation holds for the base of a loaded model, without the one in `asked`: the
    bundled model, and in a checkout the examples. A base is the same if its weights are, or its name and geometry."""
    folders = [ROOT, *sorted(path.parent for path in ROOT.glob("examples/*/*/iti_directions.safetensors"))]
    ours, kept = model.iti_directions, []
    for folder in folders:
        if folder == Path(asked).resolve():
            continue
        other = SteeredRepo.open(folder, framework="pt")
        theirs = other.default_directions
        if any(getattr(ours, key) != getattr(theirs, key) for key in GEOMETRY):
            continue
        same = bool(ours.base_model) and ours.base_model == theirs.base_model
        if same or _weights(other, model.dtype) == fingerprint(model)[:16]:
            kept.append(other)
    return kept


def _weights(repo: SteeredRepo, dtype: torch.dtype) -> str | None:
    """The short name of a repo's weights: of those in it, or else as its evaluation records it."""
    if repo.weights_from is not None:
        return repo.evaluation.get("model")
    return fingerprint(ITILlamaForCausalLM.from_pretrained(repo.folder, dtype=dtype))[:16]


def resemblance(model: ITILlamaForCausalLM, other: SteeredRepo) -> dict[int, float]:
    """The cosine of the shifts in each layer that both steer."""
    layers = model.model.layers
    return overlap(
        model.iti_directions.top(model.iti_top_k),
        other.used(),
        lambda layer: layers[layer].self_attn.o_proj.weight.detach().float().cpu(),
    )
