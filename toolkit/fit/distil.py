"""Offsets for the heads by which a model answers bare prompts as it does under an instruction.

The teacher is the plain model with the instruction, the student the same model without it, its heads shifted. The
offsets are what Adam finds for the mean KL(teacher || student) over the tokens of the teacher's own answers: context
distillation (Askell et al. 2021, arXiv 2112.00861; Snell et al. 2022, arXiv 2209.15189) into the shift of
Inference-Time Intervention, and into nothing else. The weights stay as they are.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from iti_llama import ITIDirections
from iti_llama.generation_iti_llama import record_heads

from ..foundation.bound_memory import batches_of, next_token_logs, tokens_a_batch
from .shifted_passes import BareRow, Batch, collate, frozen, hidden_states, input_device, shifted


STEPS, BATCH, RATE, WARM_UP = 48, 8, 0.03, 5
"""Steps; answers of a step; the rate of Adam, as a share of the size of a head's output; steps until the rate is
whole. From there it falls to a tenth, along a cosine."""


@dataclass(frozen=True)
class TaughtAnswer:
    """An answer of the teacher, as tokens, after the prompt with the instruction and after the bare one."""

    told: list[int]
    bare: list[int]
    answer: list[int]


def distil(
    model: PreTrainedModel,
    answers: Sequence[TaughtAnswer],
    scope: str = "all",
    seed: int = 0,
    progress: Callable[[int], None] = lambda steps: None,
) -> ITIDirections:
    """Directions of all heads whose shift at alpha 1 is what was found, the largest shift first, for a model that is
    not steered. sigma is measured over the tokens of some texts; times its weight it is the length of the shift.
    scope: the positions that are shifted, see `ITILlamaConfig`. progress: called with 1 after each of the `STEPS`.

    Raises:
        ValueError: without an answer, or if a text is longer than the model reads.
    """
    if not answers:
        raise ValueError("no answer to learn from; expected some that are neither empty nor a loop")
    told, bare = (
        [BareRow(prompt + row.answer, len(prompt), 1) for row, prompt in zip(answers, prompts, strict=True)]
        for prompts in ([row.told for row in answers], [row.bare for row in answers])
    )
    longest, most = max(len(row.ids) for row in (*told, *bare)), model.config.max_position_embeddings
    if longest > most:
        raise ValueError(f"a request with its answer has {longest} tokens; expected at most {most}")
    batches = batches_of([len(row.ids) for row in told], BATCH, tokens_a_batch(model, kept="graph"))
    with frozen(model):
        covariances = _covariances(model, collate([bare[i] for i in batches[-1]], 0, scope))
        size = covariances.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True).sqrt()
        taught = [_taught(model, [told[i] for i in batch]) for batch in batches]
        shares = torch.zeros(*size.shape[:2], model.config.head_dim, requires_grad=True)
        optimizer = torch.optim.Adam([shares])
        generator = torch.Generator().manual_seed(seed)
        order: list[int] = []
        for step in range(STEPS):
            order = order or torch.randperm(len(batches), generator=generator).tolist()
            at = order.pop()
            batch = collate([bare[i] for i in batches[at]], 0, scope)
            rate = RATE * (0.1 + 0.45 * (1 + math.cos(math.pi * step / STEPS)))
            optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / WARM_UP)
            shares.grad = _slopes(model, shares * size, batch, taught[at], shares)
            optimizer.step()
            progress(1)
    return _directions((shares * size).detach(), covariances)


@torch.no_grad()
def _covariances(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The covariance of each head's output over the tokens of some texts, [layers, heads, head_dim, head_dim]."""
    real = batch.mask.bool()

    def of_heads(heads: torch.Tensor) -> torch.Tensor:
        tokens = heads[real.to(heads.device)].float().unflatten(-1, (-1, model.config.head_dim))
        tokens = tokens - tokens.mean(0)
        return (torch.einsum("thd,the->hde", tokens, tokens) / len(tokens)).cpu()

    device = input_device(model)
    found = record_heads(
        model.base_model, of_heads, input_ids=batch.ids.to(device), attention_mask=batch.mask.to(device)
    )
    return torch.stack([found[layer] for layer in sorted(found)])


@torch.no_grad()
def _taught(model: PreTrainedModel, rows: Sequence[BareRow]) -> torch.Tensor:
    """The teacher's last hidden states before each token of its answers, [tokens, hidden_size]."""
    return hidden_states(model, collate(rows, 0, "all"))


def _slopes(
    model: PreTrainedModel, offsets: torch.Tensor, batch: Batch, taught: torch.Tensor, shares: torch.Tensor
) -> torch.Tensor:
    """The derivative of the mean KL(teacher || student), a token of the answers, by `shares`."""
    ones = torch.ones(1, offsets.shape[1])
    with torch.enable_grad(), shifted(model, offsets, lambda layer, x: ones.to(x.device), batch.shifted):
        student = hidden_states(model, batch)
        leaf = student.detach().requires_grad_()
        teacher = next_token_logs(model, taught.to(leaf.device))
        for _, after in next_token_logs(model, leaf):
            with torch.no_grad():
                _, before = next(teacher)
            ((before.exp() * (before - after)).sum() / len(leaf)).backward()
        (slopes,) = torch.autograd.grad(student, [shares], leaf.grad)
    return slopes


def _directions(offsets: torch.Tensor, covariances: torch.Tensor) -> ITIDirections:
    layers, heads, head_dim = offsets.shape
    lengths = offsets.norm(dim=-1).flatten()
    units = torch.nn.functional.normalize(offsets.flatten(0, 1), dim=-1)
    units[lengths == 0, 0] = 1.0  # any direction will do
    variances = torch.einsum("hd,hde,he->h", units, covariances.flatten(0, 1), units)
    sigma, order = variances.clamp_min(1e-12).sqrt(), lengths.argsort(descending=True)
    return ITIDirections(
        heads=torch.stack([order // heads, order % heads], 1),
        directions=units[order],
        sigma=sigma[order],
        weights=(lengths / sigma)[order],
        num_hidden_layers=layers,
        num_attention_heads=heads,
        head_dim=head_dim,
    )
