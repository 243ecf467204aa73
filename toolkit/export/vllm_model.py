"""vLLM's Llama, which shifts the heads by the strengths of each token's request. The checkpoint is that of the
unmodified base. Only vLLM imports this module, through `vllm_plugin`."""

from dataclasses import asdict

import torch
from vllm.config import CompilationMode, CUDAGraphMode, VllmConfig
from vllm.distributed import get_tensor_model_parallel_rank
from vllm.forward_context import get_forward_context
from vllm.model_executor.models.llama import LlamaAttention, LlamaDecoderLayer, LlamaForCausalLM
from vllm.model_executor.models.utils import extract_layer_index

from .vllm_strengths import KEY, Strengths


class ITIAttention(LlamaAttention):
    """The attention of a steered layer. `steer` gives it what it adds."""

    def steer(self, strengths: torch.Tensor, offsets: dict[str, dict[int, torch.Tensor]]) -> None:
        """strengths: float32 [tokens, adapters], written before each pass. offsets: what strength 1 adds to the heads
        (all of them; this rank takes its own) or to the output, by site and the adapter's column."""
        first = get_tensor_model_parallel_rank() * self.q_size
        self.register_buffer("iti_strengths", strengths, persistent=False)
        self.iti_columns = {site: list(rows) for site, rows in offsets.items()}
        for site, rows in offsets.items():
            stacked = torch.stack(list(rows.values()))
            stacked = stacked[:, first : first + self.q_size].contiguous() if site == "head" else stacked
            self.register_buffer(f"iti_{site}", stacked.to(strengths.device), persistent=False)

    def forward(self, positions: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
        """`LlamaAttention.forward`, with the two shifts."""
        qkv, _ = self.qkv_proj(hidden_states)
        q, k, v = qkv.split([self.q_size, self.kv_size, self.kv_size], dim=-1)
        q, k = self.rotary_emb(positions, q, k)
        heads = self.shifted("head", self.attn(q, k, v))
        output, _ = self.o_proj(heads)
        return self.shifted("residual", output)

    def shifted(self, site: str, x: torch.Tensor) -> torch.Tensor:
        if site not in self.iti_columns:
            return x
        shift = 0.0
        for row, column in enumerate(self.iti_columns[site]):
            shift = shift + self.iti_strengths[: len(x), column, None] * getattr(self, f"iti_{site}")[row]
        return x + shift.to(x.dtype)


class ITIDecoderLayer(LlamaDecoderLayer):
    """A layer. If no adapter steers it, it has vLLM's own attention."""

    def __init__(self, vllm_config: VllmConfig, prefix: str = "", config=None):
        strengths = strengths_of(vllm_config)
        offsets = strengths.offsets.get(extract_layer_index(prefix))
        super().__init__(vllm_config, prefix, config, attn_layer_type=ITIAttention if offsets else LlamaAttention)
        if offsets:
            self.self_attn.steer(strengths.tokens, offsets)


class ITILlamaForCausalLM(LlamaForCausalLM):
    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "", layer_type=ITIDecoderLayer):
        check_settings(vllm_config)
        super().__init__(vllm_config=vllm_config, prefix=prefix, layer_type=layer_type)
        self.iti = strengths_of(vllm_config)
        self.iti_layer = self.model.layers[self.model.start_layer].self_attn.attn.layer_name

    def forward(self, input_ids, positions, intermediate_tensors=None, inputs_embeds=None):
        """Write the strengths of this pass's tokens, then run Llama's forward. The first step is not compiled. A CUDA
        graph that holds the whole pass holds this step too."""
        self.iti.place(self._bounds(), positions)
        return super().forward(input_ids, positions, intermediate_tensors, inputs_embeds)

    def _bounds(self) -> torch.Tensor | None:
        """Where the tokens of each request of this pass begin. It is vLLM's own buffer; its attention reads it too."""
        context = get_forward_context()
        if context.attn_metadata is None and context.cudagraph_runtime_mode != CUDAGraphMode.FULL:
            return None  # a trial pass, without requests
        metadata = context.attn_metadata
        metadata = metadata.get(self.iti_layer) if isinstance(metadata, dict) else None
        if not isinstance(bounds := getattr(metadata, "query_start_loc", None), torch.Tensor):
            raise RuntimeError(
                f"{type(metadata).__name__} has no query_start_loc, which says whose tokens are whose; expected an "
                "attention backend that has it, such as --attention-backend FLASH_ATTN, and no dual batch overlap"
            )
        return bounds


def strengths_of(vllm_config: VllmConfig) -> Strengths:
    """The server's strengths. Raises `ValueError` if it was started without them."""
    strengths = vllm_config.compilation_config.static_forward_context.get(KEY)
    if strengths is None:
        raise ValueError(
            "ITILlamaForCausalLM runs without its strengths: start vLLM with --logits-processors "
            "iti_llama.toolkit.export.vllm_strengths:Strengths"
        )
    return strengths


def check_settings(vllm_config: VllmConfig) -> None:
    """Raises `ValueError` for settings under which requests would not have their strengths."""
    strengths = strengths_of(vllm_config)
    if vllm_config.compilation_config.mode == CompilationMode.STOCK_TORCH_COMPILE:
        raise ValueError("compilation mode 1 (STOCK_TORCH_COMPILE) compiles the whole pass; expected 0, 2 or 3")
    if not isinstance(vllm_config.additional_config, dict):
        raise ValueError("--additional-config is not a dict; expected one, because the steered layers are noted there")
    freezes = vllm_config.compilation_config.inductor_compile_config.get("max_autotune")
    if freezes and strengths.tokens.device.type == "cpu":
        raise ValueError("max_autotune turns a model's tensors into constants, but the strengths change; leave it out")
    # vLLM caches compiled layers by a hash of its config, and other directions make other layers.
    vllm_config.additional_config["iti"] = [
        [asdict(behaviour) for behaviour in adapter.behaviours] for adapter in strengths.adapters.values()
    ]
