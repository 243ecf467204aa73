"""What heads add behind their output projection."""

import torch
from reference import assert_close

from iti_llama.toolkit.foundation.output_shift import output_shift


def test_a_shift_is_that_of_the_whole_projection(base, directions):
    """Only the columns of the chosen heads are read; float64 over all of them is the reference."""
    for layer, offset in directions.offsets().items():
        weight = base.model.layers[layer].self_attn.o_proj.weight.detach()
        expected = weight.double() @ offset.double()
        assert_close(output_shift(weight, offset), expected)
        assert_close(torch.from_numpy(output_shift(weight.numpy(), offset.numpy())), expected)
