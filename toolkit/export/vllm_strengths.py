"""The strengths of the requests in vLLM's batch, on its device. Only vLLM imports this module:
`--logits-processors iti_llama.toolkit.export.vllm_strengths:Strengths`."""

import torch
from vllm.v1.sample.logits_processor import LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from ..foundation.strength_range import any_strength
from .vllm_plugin import ARGUMENT, adapters_of_server, check_arguments, offsets_of, strengths_of_argument


KEY = "iti_strengths"
"""The key under which the model finds them in vLLM's `static_forward_context`."""


class Strengths(LogitsProcessor):
    """vLLM's model runner (V1) tells its logits processors before each pass which requests came, went and moved, with
    their arguments. This one changes no logits: it keeps the strengths, by which the model multiplies its offsets.

    alphas: float32 [places in the batch, adapters]. starts: int64 of the same shape, the first shifted position.
    tokens: float32 [tokens of a pass, adapters], see `place`. These tensors are made once and written in place,
    because CUDA graphs read them at their address. offsets: see `offsets_of`.
    """

    @classmethod
    def validate_params(cls, sampling_params) -> None:
        """Raises `ValueError`, which vLLM answers with HTTP 400."""
        check_arguments(sampling_params.extra_args, adapters_of_server(), any_strength())

    def __init__(self, vllm_config, device: torch.device, is_pin_memory: bool):
        self.adapters = adapters_of_server()
        self.generated = torch.tensor([adapter.scope == "generated" for adapter in self.adapters.values()])
        if vllm_config.model_config.enable_prompt_embeds and self.generated.any():
            raise ValueError(
                "--enable-prompt-embeds: vLLM does not say where the prompt ends, and scope 'generated' begins there"
            )
        self.offsets = offsets_of(self.adapters, vllm_config.model_config.hf_config)
        scheduler = vllm_config.scheduler_config
        shape = scheduler.max_num_seqs + 1, len(self.adapters)  # the last place is for padding, and stays 0
        self.alphas = torch.zeros(shape, device=device)
        self.starts = torch.zeros(shape, device=device, dtype=torch.int64)
        self.tokens = torch.zeros(scheduler.max_num_batched_tokens, len(self.adapters), device=device)
        self.order = torch.arange(scheduler.max_num_batched_tokens, device=device, dtype=torch.int32)
        self._alphas = torch.zeros(shape, pin_memory=is_pin_memory)
        self._starts = torch.zeros(shape, pin_memory=is_pin_memory, dtype=torch.int64)
        self._rows: dict[int, tuple[list[float], int]] = {}
        vllm_config.compilation_config.static_forward_context[KEY] = self

    def is_argmax_invariant(self) -> bool:
        return True

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        return logits

    def update_state(self, batch_update) -> None:
        if not process_dict_updates(self._rows, batch_update, self._row):
            return
        self._alphas.zero_()
        if self._rows:
            places = list(self._rows)
            alphas, ends = zip(*self._rows.values(), strict=True)
            self._alphas[places] = torch.tensor(alphas)
            self._starts[places] = torch.tensor(ends)[:, None] * self.generated
        self.alphas.copy_(self._alphas, non_blocking=True)
        self.starts.copy_(self._starts, non_blocking=True)

    def _row(self, params, prompt_ids: list[int] | None, output_ids: list[int]) -> tuple[list[float], int] | None:
        """The strengths of a request, and the place of its prompt's last token; None for a plain request."""
        if ARGUMENT not in (params.extra_args or {}):
            return None
        strengths = strengths_of_argument(params.extra_args[ARGUMENT], self.adapters, any_strength=True)  # checked
        return [strengths.get(name, 0.0) for name in self.adapters], len(prompt_ids or ()) - 1

    def place(self, bounds: torch.Tensor | None, positions: torch.Tensor) -> None:
        """Write the strengths of the tokens of a pass. bounds: int32 [requests + 1], where the tokens of each request
        begin, then the end; None for a pass without requests. positions: int64 [tokens]."""
        tokens = self.tokens[: len(positions)]
        if bounds is None:
            tokens.zero_()
            return
        places = torch.searchsorted(bounds[1:], self.order[: len(positions)], right=True)
        places = places.clamp_max(len(self.alphas) - 1)
        torch.mul(self.alphas[places], positions[:, None] >= self.starts[places], out=tokens)
