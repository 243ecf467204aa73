"""ITI-Llama: a Llama steered at inference time (Inference-Time Intervention, Li et al. 2023).

Importing this package imports neither torch nor transformers: a name is loaded when it is used. Once both this package
and transformers' Auto classes are imported, in any order, these know `iti_llama` without remote code.
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
_NAMES = {
    "transformers.models.auto.configuration_auto": {
        "CONFIG_MAPPING_NAMES": "ITILlamaConfig",
        "MODEL_NAMES_MAPPING": "ITI-Llama",  # in transformers 4, for documentation
    },
    "transformers.models.auto.modeling_auto": {
        "MODEL_MAPPING_NAMES": "ITILlamaModel",
        "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES": "ITILlamaForCausalLM",
    },
}
"""The tables of the Auto classes, by module: {model type: name of the class}, looked up in `transformers.models`."""

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def register() -> None:
    """Tell transformers' Auto classes about `iti_llama`. It is called automatically, and imports torch."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    config = __getattr__("ITILlamaConfig")
    AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoModel.register(config, __getattr__("ITILlamaModel"), exist_ok=True)
    AutoModelForCausalLM.register(config, __getattr__("ITILlamaForCausalLM"), exist_ok=True)


class _NamesForAutoClasses(MetaPathFinder):
    """Writes our names into the tables of the Auto classes as soon as these are imported. The classes themselves
    cannot be loaded then, since what they import may be half loaded."""

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        if name not in _NAMES or (spec := PathFinder.find_spec(name, path, target)) is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module) -> None:
            execute(module)
            sys.modules["transformers.models.iti_llama"] = sys.modules[__name__]
            for table, class_name in _NAMES[name].items():
                getattr(module, table, {})["iti_llama"] = class_name

        spec.loader.exec_module = exec_module
        return spec


if any(name in sys.modules for name in _NAMES):
    register()
else:
    sys.meta_path.insert(0, _NamesForAutoClasses())
