"""The card of an export: what it is, how it is run, and how one sees that it is steered."""

import json
import shlex
from pathlib import Path

from huggingface_hub import ModelCardData

from ..repo.card import TAGS
from ..repo.replace_parts import one_line
from .canary import FILE, Canary
from .source import Source


RUN = {
    "llama": """```
vllm serve .                       # also SGLang, TGI, MLX-LM, CTranslate2: it is a plain Llama
transformers serve .
```

```python
model = AutoModelForCausalLM.from_pretrained(".")  # no remote code
```""",
    "gguf": """```
llama-server -m FILE.gguf          # also Ollama and LM Studio
```

transformers' own GGUF loader drops the biases unless `attention_bias=True` is passed: it would run un-steered.""",
    "peft": """```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained({base_in_python})
model = PeftModel.from_pretrained(base, ".")
for module in model.modules():
    if hasattr(module, "set_scale"):
        module.set_scale("default", 0.5)  # half the strength; 1 is as exported
```

vLLM and llama.cpp refuse it (`lora_bias`): export to `vllm` or `gguf` for them.""",
    "vllm": """With the package in vLLM's environment (`pip install "iti-llama[vllm]"`), on the unmodified base; a
request's model is then `steered`, or a strength of its own, as `steered@0.5`, or it has
`"vllm_xargs": {{"iti": 0.5}}`:

```
export ITI_ADAPTERS=steered=.
vllm serve {base_in_shell} --hf-overrides '{{"architectures": ["ITILlamaForCausalLM"]}}' \\
    --logits-processors iti_llama.toolkit.export.vllm_strengths:Strengths \\
    --middleware iti_llama.toolkit.export.vllm_server.Steering
```

On a GPU also `export VLLM_USE_V2_MODEL_RUNNER=0`. Without any of these vLLM refuses to start, or to steer.""",
}


POSITIONS = {
    "all": "at every position, of the prompt too",
    "generated": "from the prompt's last token on",
}


HOW_TO_ASK = """
## Is it steered?

An engine that ignores the steering answers plainly and says nothing. `{file}` holds a prompt whose plain and steered
answers part at token {position}: `iti-llama canary URL_OR_FOLDER --canary {file}` asks, and says *steered*, *plain* or
*neither*.
"""


def export_card(source: Source, to: str, canary: Canary | None, notes: list[str]) -> str:
    """The text of README.md."""
    behaviour = one_line(source.steered.directions[source.behaviours[0].name].provenance.get("behaviour", ""))
    does = f", {source.kind} so that it **{behaviour}**" if behaviour and source.alpha else f", {source.kind}"
    name = Path(source.repo).resolve().name if Path(source.repo).is_dir() else source.repo
    how_to_ask = "" if canary is None else HOW_TO_ASK.format(file=FILE, position=canary.position)
    notes = "".join(f"- {one_line(line)}\n" for line in notes)
    base = {
        "base_in_python": json.dumps(source.hub_base or "BASE", ensure_ascii=False),
        "base_in_shell": shlex.quote(source.hub_base or "BASE"),
    }
    metadata = ModelCardData(
        base_model=source.hub_base,
        library_name={"peft": "peft", "gguf": "gguf"}.get(to, "transformers"),
        pipeline_tag="text-generation",
        tags=TAGS,
    )
    return f"""---
{metadata.to_yaml()}
---

# {one_line(source.base_name.split("/")[-1])}{does}

The form `{to}` of `{one_line(name)}`: Inference-Time Intervention (Li et al. 2023) on {source.heads} heads at
alpha = {source.alpha:g}, {POSITIONS[source.scope]}.
{notes}
{RUN[to].format(**base)}
{how_to_ask}"""
