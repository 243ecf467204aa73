"""The reference that the model code is tested against: forward pre-hooks on the output projection of a plain Llama, as
the paper writes the intervention, and small real models to run it on. Shares no code with the package."""

from contextlib import contextmanager

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from iti_llama import ITIDirections


def tiny_config(**overrides) -> LlamaConfig:
    """Grouped-query attention, a head_dim that is not hidden_size / heads, llama3 rope scaling, vocab !=
    intermediate."""
    rope = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope["original_max_position_embeddings"] = 64
    fields = {
        "vocab_size": 97,
        "hidden_size": 64,
        "intermediate_size": 112,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 24,
        "max_position_embeddings": 256,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if hasattr(LlamaConfig, "rope_parameters"):
        fields["rope_parameters"] = rope
    else:
        fields |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    return LlamaConfig(**(fields | overrides))


def tiny_llama(seed: int = 0, **overrides) -> LlamaForCausalLM:
    """A random Llama whose logits depend on everything: its matrices are scaled up from their initial values."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(tiny_config(**overrides)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.1)
            else:
                parameter.uniform_(0.5, 1.5)
    return model


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character, for the vocabulary of `tiny_config`; starts every text with BOS."""
    special = ["<pad>", "<bos>", "<eos>", "<unk>"]
    characters = "\n abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789()[]{}=+-*/<>:.,_\"'#%!"
    tokenizer = Tokenizer(models.WordLevel({t: i for i, t in enumerate([*special, *characters])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    names = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **names)


def some_directions(config: LlamaConfig, k: int = 4, seed: int = 0, site: str = "head", layers=None) -> ITIDirections:
    """Random directions for `k` heads of some of the layers (not the last one, unless `layers` says so)."""
    generator = torch.Generator().manual_seed(seed)
    layers = range(config.num_hidden_layers - 1) if layers is None else layers
    pairs = [[layer, head] for layer in layers for head in range(config.num_attention_heads)]
    chosen = [pairs[i] for i in torch.randperm(len(pairs), generator=generator)[:k]]
    directions = torch.randn(k, config.head_dim, generator=generator)
    return ITIDirections(
        heads=torch.tensor(chosen),
        directions=directions / directions.norm(dim=-1, keepdim=True),
        sigma=torch.rand(k, generator=generator) * 2 + 0.5,
        scores=torch.linspace(1, 0.6, k),
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        head_dim=config.head_dim,
        site=site,
        base_model="tiny",
        provenance={"dataset": "random"},
    )


@contextmanager
def hooks(model: LlamaForCausalLM, directions: ITIDirections, alpha: float | torch.Tensor, positions=slice(None)):
    """Inside the block, `x[l, h] += alpha * sigma[l, h] * theta[l, h]` at the input of o_proj (or, for site
    "residual", at its output), for the `positions` of each forward pass: all, `slice(-1, None)` for the last, or a
    [batch, seq] weight."""
    by_layer: dict[int, list] = {}
    weights = torch.ones(len(directions.sigma)) if directions.weights is None else directions.weights
    for (layer, head), theta, sigma, weight in zip(
        directions.heads.tolist(), directions.directions, directions.sigma, weights, strict=True
    ):
        by_layer.setdefault(layer, []).append((head, weight * sigma * theta))

    def shifted(x: torch.Tensor, heads: list) -> torch.Tensor:
        x = x.clone()
        strength = torch.as_tensor(alpha, dtype=torch.float32).reshape(-1, 1, 1)
        for head, offset in heads:
            columns = slice(head * directions.head_dim, (head + 1) * directions.head_dim)
            if isinstance(positions, slice):
                x[:, positions, columns] += (strength * offset).to(x.dtype)
            else:
                x[:, :, columns] += (strength * positions[..., None] * offset).to(x.dtype)
        return x

    handles = []
    for layer, heads in by_layer.items():
        o_proj = model.model.layers[layer].self_attn.o_proj
        if directions.site == "head":
            hook = lambda module, arguments, heads=heads: (shifted(arguments[0], heads),)  # noqa: E731
            handles.append(o_proj.register_forward_pre_hook(hook))
        else:
            hook = lambda module, arguments, output, heads=heads: shifted(output, heads)  # noqa: E731
            handles.append(o_proj.register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


SCOPE_POSITIONS = {"all": slice(None), "generated": slice(-1, None)}
"""What a hook shifts in each forward pass of cached generation: the prompt's last token, then each generated one."""


def assert_close(ours: torch.Tensor, reference: torch.Tensor, relative: float = 1e-5) -> None:
    """Largest difference at most `relative` times the scale of the reference's logits."""
    difference, scale = (ours.float() - reference.float()).abs().max().item(), reference.float().abs().max().item()
    assert difference <= relative * scale, f"differs by {difference:.3g} at a scale of {scale:.3g}"
