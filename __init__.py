"""ITI-Llama: a Llama steered at inference time (Inference-Time Intervention, Li et al. 2023)."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from .configuration_iti_llama import ITILlamaConfig
from .iti_directions import ITIDirections, ITIDirectionsError
from .modeling_iti_llama import ITILlamaForCausalLM, ITILlamaModel
from .toolkit.version import __version__


# With the package installed, the Auto classes know iti_llama without remote code.
AutoConfig.register(ITILlamaConfig.model_type, ITILlamaConfig, exist_ok=True)
AutoModel.register(ITILlamaConfig, ITILlamaModel, exist_ok=True)
AutoModelForCausalLM.register(ITILlamaConfig, ITILlamaForCausalLM, exist_ok=True)

__all__ = [
    "ITIDirections",
    "ITIDirectionsError",
    "ITILlamaConfig",
    "ITILlamaForCausalLM",
    "ITILlamaModel",
    "__version__",
]
