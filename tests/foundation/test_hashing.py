"""Models and directions are known by what they hold."""

import torch
from reference import some_directions, tiny_llama

from iti_llama import ITILlamaForCausalLM
from iti_llama.toolkit.foundation.hashing import fingerprint, fingerprint_of


def test_the_steering_does_not_change_the_name_of_the_weights(base_dir, directions):
    plain = fingerprint(ITILlamaForCausalLM.from_base(base_dir, None))
    model = ITILlamaForCausalLM.from_base(base_dir, directions, alpha=2.0)
    assert fingerprint(model) == plain
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.mul_(1.01)
    assert fingerprint(model) != plain
    assert fingerprint(tiny_llama(seed=1)) != fingerprint(tiny_llama())


def test_directions_are_known_by_heads_vectors_and_sigmas(base):
    one, other = some_directions(base.config), some_directions(base.config, seed=1)
    assert fingerprint_of(one) == fingerprint_of(some_directions(base.config)) != fingerprint_of(other)
    assert fingerprint_of(one.top(2)) != fingerprint_of(one)
