"""Short names for models and directions. They depend on the contents, not on the path."""

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from iti_llama import ITIDirections


def fingerprint(model: "PreTrainedModel") -> str:
    """A short name for the weights and shape of a model, whatever its path: a hash over 256 values of each weight."""
    ours = (
        "name",
        "_",
        "transformers_version",
        "torch_dtype",
        "dtype",
        "iti_",
        "base_model",
        "auto_map",
        "architectures",
    )
    config = {key: value for key, value in model.config.to_dict().items() if not key.startswith(ours)}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}".encode())
        if tensor.device.type != "meta":
            flat = tensor.detach().flatten()
            digest.update(flat[:: max(1, len(flat) // 256)][:256].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def fingerprint_of(directions: "ITIDirections") -> str:
    """A short name for the effect of directions, in NumPy or torch: a hash over heads, unit vectors and scales."""
    parts = (directions.heads, directions.directions, directions.scales)
    return hashlib.sha256(b"".join(np.asarray(part).tobytes() for part in parts)).hexdigest()
