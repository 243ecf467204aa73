"""ITI-Llama: a Llama steered at inference time (Inference-Time Intervention, Li et al. 2023).

Importing this package imports neither torch nor transformers: a name is loaded when it is used. Once both this package
and transformers' Auto classes are imported, in any order, those know `iti_llama` without remote code.
"""

import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder

from .toolkit.foundation.package import __version__


_HOMES = {
    "ITIDirections": "iti_directions",
    "ITIDirectionsError": "iti_directions",
    "ITILlamaConfig": "configuration_iti_llama",
    "ITILlamaForCausalLM": "modeling_iti_llama",
    "ITILlamaModel": "modeling_iti_llama",
    "push": "toolkit.repo.push",
    "renew_card": "toolkit.repo.card",
    "smollm2": "toolkit.convert.smollm2",
}

__all__ = [
    "ITIDirections",
    "ITIDirectionsError",
    "ITILlamaConfig",
    "ITILlamaForCausalLM",
    "ITILlamaModel",
    "__version__",
    "push",
    "renew_card",
    "smollm2",
]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _HOMES[name] == "modeling_iti_llama":
        register()
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def register() -> None:
    """Tell transformers' Auto classes about `iti_llama`. Done by itself; imports torch."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    from .configuration_iti_llama import ITILlamaConfig
    from .modeling_iti_llama import ITILlamaForCausalLM, ITILlamaModel

    AutoConfig.register(ITILlamaConfig.model_type, ITILlamaConfig, exist_ok=True)
    AutoModel.register(ITILlamaConfig, ITILlamaModel, exist_ok=True)
    AutoModelForCausalLM.register(ITILlamaConfig, ITILlamaForCausalLM, exist_ok=True)


class _WhenTransformersIsThere(MetaPathFinder):
    """Calls `register` once the Auto classes have been imported, and no module that it needs is half-way there."""

    awaited = ("transformers.models.auto.modeling_auto", "transformers.modeling_layers")
    awaited += ("transformers.models.llama.modeling_llama",)
    awaited += tuple(f"{__name__}.{part}_iti_llama" for part in ("configuration", "generation", "loading", "modeling"))

    def __init__(self):
        self.done: set[str] = {name for name in self.awaited if _complete(name)}

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        if name not in self.awaited or (spec := PathFinder.find_spec(name, path, target)) is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module) -> None:
            execute(module)
            self.done.add(name)
            self.register_if_ready()

        spec.loader.exec_module = exec_module
        return spec

    def register_if_ready(self) -> None:
        half_way = any(name in sys.modules and name not in self.done for name in self.awaited)
        if self.awaited[0] in self.done and not half_way and self in sys.meta_path:
            sys.meta_path.remove(self)
            register()


def _complete(name: str) -> bool:
    module = sys.modules.get(name)
    return module is not None and not getattr(module.__spec__, "_initializing", False)


_finder = _WhenTransformersIsThere()
sys.meta_path.insert(0, _finder)
_finder.register_if_ready()
