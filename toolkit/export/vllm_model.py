"""vLLM's Llama with a zero `iti` layer beside each output projection: a LoRA on it is a steering, and each request of
a batch has its own. The checkpoint is the unmodified base's. Imported by vLLM alone, through `vllm_plugin`."""

from collections.abc import Iterable

import torch
from vllm.model_executor.layers.linear import ReplicatedLinear
from vllm.model_executor.models.llama import LlamaAttention, LlamaDecoderLayer, LlamaForCausalLM


INPUTS = 16
"""As `adapters.ITI_INPUTS`; all of them 1, so that a LoRA of rank 1 adds a constant vector."""


class ITIAttention(LlamaAttention):
    def __init__(self, *args, hidden_size: int, prefix: str = "", **kwargs):
        super().__init__(*args, hidden_size=hidden_size, prefix=prefix, **kwargs)
        self.iti = ReplicatedLinear(INPUTS, hidden_size, bias=False, quant_config=None, prefix=f"{prefix}.iti")
        torch.nn.init.zeros_(self.iti.weight)

    def forward(self, positions: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
        output = super().forward(positions=positions, hidden_states=hidden_states)
        shift, _ = self.iti(output.new_ones(output.shape[0], INPUTS))
        lora = getattr(self.iti, "punica_wrapper", None)
        if lora is not None and output.device.type == "cpu":
            # vLLM's CPU kernels (0.32) take a request without adapter, index -1, for one with the last adapter.
            shift = shift * (lora.token_lora_indices[: len(shift), None] >= 0)
        return output + shift


class ITIDecoderLayer(LlamaDecoderLayer):
    def __init__(self, vllm_config, prefix: str = "", config=None, attn_layer_type=ITIAttention):
        super().__init__(vllm_config, prefix, config, attn_layer_type)


class ITILlamaForCausalLM(LlamaForCausalLM):
    def __init__(self, *, vllm_config, prefix: str = "", layer_type=ITIDecoderLayer):
        super().__init__(vllm_config=vllm_config, prefix=prefix, layer_type=layer_type)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """The base's weights; the `iti` layers stay zero, and count as loaded."""
        loaded = super().load_weights(weights)
        return loaded | {name for name, _ in self.named_parameters() if ".iti." in name}
