"""Load a form of a steered model: a steered repo, a plain checkpoint, a PEFT adapter on its base, a GGUF file. Each
continues tokens greedily, and gives the log-probabilities of the next token."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from ..foundation.complete import greedy
from ..foundation.files import folder_of
from ..foundation.open_gguf import open_gguf
from ..repo.open_repo import read_object
from .select_behaviours import ExportError
from .vllm_plugin import EXPORT


class Form(Protocol):
    def continues(self, ids: Sequence[int], tokens: int) -> str: ...

    def next_token(self, ids: Sequence[int]) -> np.ndarray:
        """Log-probabilities [vocabulary] of the token after `ids`, float64."""


@dataclass(frozen=True)
class InTransformers:
    """model: a model of transformers or PEFT. tokenizer: decodes its tokens."""

    model: torch.nn.Module
    tokenizer: object

    @torch.no_grad()
    def continues(self, ids: Sequence[int], tokens: int) -> str:
        inputs = self._tensor(ids)
        with greedy(self.model):
            out = self.model.generate(
                input_ids=inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=tokens,
                pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id,
            )  # fmt: skip
        return self.tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True)

    @torch.no_grad()
    def next_token(self, ids: Sequence[int], **kwargs) -> np.ndarray:
        return self.model(input_ids=self._tensor(ids), **kwargs).logits[0, -1].double().log_softmax(-1).cpu().numpy()

    def _tensor(self, ids: Sequence[int]) -> torch.Tensor:
        return torch.tensor([list(ids)], device=self.model.get_input_embeddings().weight.device)


class InLlamaCpp:
    """llama.cpp in this process, by xllamacpp. It has a float32 cache and no flash attention, so that only the file
    matters."""

    def __init__(self, path: Path):
        try:
            import xllamacpp
        except ImportError:
            raise ExportError(f"{path}: to run a GGUF file install xllamacpp (`pip install xllamacpp`)") from None
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        reader = open_gguf(path)
        params.n_ctx = min(4096, reader.fields["llama.context_length"].contents())
        params.n_parallel, params.warmup, params.verbosity, params.n_gpu_layers = 1, False, 0, 0
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        tokens = reader.fields["tokenizer.ggml.tokens"].contents()
        self.vocabulary = len(tokens)
        # llama.cpp gives no probabilities if the answer is not a whole character, so a whole one is forced.
        self.forced = next(index for index, token in enumerate(tokens) if len(token) == 1 and token.isascii())
        self.server = xllamacpp.Server(params)

    def _ask(self, **body) -> dict:
        reply = self.server.handle_completions({"temperature": 0, "cache_prompt": False, **body})
        reply = json.loads(reply) if isinstance(reply, str) else reply
        if "choices" not in reply:
            raise ExportError(f"llama.cpp: {reply}")
        return reply["choices"][0]

    def continues(self, ids: Sequence[int], tokens: int) -> str:
        return self._ask(prompt=list(ids), n_predict=tokens)["text"]

    def next_token(self, ids: Sequence[int]) -> np.ndarray:
        forced = [[self.forced, 100.0]]
        choice = self._ask(prompt=list(ids), n_predict=1, n_probs=self.vocabulary, logit_bias=forced)
        logs = np.full(self.vocabulary, -np.inf)
        for entry in choice["logprobs"]["content"][0]["top_logprobs"]:
            logs[entry["id"]] = entry["logprob"]
        return logs


def load_form(path: str | os.PathLike, base: str | None = None, **kwargs) -> Form:
    """Load a form from a folder, a GGUF file or the Hub. `base`: the base for an adapter, instead of the one that it
    names. `kwargs` are those of `from_pretrained`.

    Raises:
        FileNotFoundError: if there is no such folder or file. ValueError: if it is not one of the forms.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import iti_llama
    from iti_llama.configuration_iti_llama import HUB_ARGUMENTS, pinned

    path = os.fspath(path)
    if path.endswith(".gguf"):
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file")
        return InLlamaCpp(Path(path))
    folder_of(path)
    iti_llama.register()
    kwargs = {"dtype": "auto", "device_map": "auto", "trust_remote_code": False} | kwargs
    hub = {name: kwargs.pop(name) for name in HUB_ARGUMENTS if name in kwargs}
    record = Path(path, EXPORT)
    if record.is_file() and read_object(record).get("form") == "vllm":
        raise ExportError(
            f"{path}: is an adapter for vLLM's plugin, which only vLLM loads; ask the server (docs/engines.md)"
        )
    adapter = Path(path, "adapter_config.json")
    if not adapter.is_file():
        hub = pinned(path, hub)
        model = AutoModelForCausalLM.from_pretrained(path, **kwargs, **hub)
        return InTransformers(model.eval(), AutoTokenizer.from_pretrained(path, trust_remote_code=False, **hub))
    adapter_config = json.loads(adapter.read_text(encoding="utf-8"))
    named = base or adapter_config["base_model_name_or_path"]
    if named is None:
        raise ValueError(f"{path}: the adapter names no base; pass --base with its folder or Hub repo")
    from peft import PeftModel

    if base is None and (revision := adapter_config.get("revision")):
        hub |= {"revision": revision}
    hub = pinned(named, hub)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(named, **kwargs, **hub), path)
    return InTransformers(model.eval(), AutoTokenizer.from_pretrained(named, trust_remote_code=False, **hub))
