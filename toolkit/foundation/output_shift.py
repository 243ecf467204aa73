"""What an offset of the heads adds to the residual stream. Needs no torch."""

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import torch


def output_shift(weight: "torch.Tensor", offset: "torch.Tensor") -> "torch.Tensor":
    """W_O @ offset, float32 [hidden_size]. `weight` [hidden_size, heads * head_dim] of any dtype and `offset`
    [heads * head_dim], both of torch or both of NumPy."""
    used = offset != 0
    columns = weight[:, used]
    columns = columns.float() if hasattr(columns, "float") else columns.astype("float32")
    return columns @ offset[used]
