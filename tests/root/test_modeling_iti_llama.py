"""One forward pass: the steered logits are those of hooks on plain Llama, and at alpha 0 they are plain Llama's."""

import itertools
import logging

import pytest
import torch
from reference import assert_close, hooks, some_directions, tiny_config, tiny_llama
from steered import logits, steered_copy
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaForCausalLM

from iti_llama import ITIDirections, ITIDirectionsError
from iti_llama.steering_iti_llama import Steering


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1},
        {"head_dim": 16},
        {"tie_word_embeddings": True},
        {"attention_bias": True, "mlp_bias": True},
    ],
    ids=["gqa", "mha", "mqa", "usual head_dim", "tied", "biases"],
)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_steered_logits_are_those_of_hooks_on_plain_llama(overrides, attention, ids):
    base = tiny_llama(**overrides)
    directions = some_directions(base.config, k=6)
    model = steered_copy(base, directions, iti_alpha=1.3)
    for either in (base, model):
        either.set_attn_implementation(attention)
    with hooks(base, directions, 1.3):
        reference = logits(base, ids)
    assert_close(logits(model, ids), reference)
    assert (reference - logits(base, ids)).abs().max() > 0.1 * reference.abs().max()  # the steering is felt


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_alpha_zero_disabled_and_without_directions_are_plain_llama_bit_by_bit(dtype, ids):
    base = tiny_llama().to(dtype)
    model = steered_copy(base, some_directions(base.config), iti_alpha=2.0)
    plain = logits(base, ids)
    assert not torch.equal(logits(model, ids), plain)
    with model.disable_iti():
        assert torch.equal(logits(model, ids), plain)
        assert torch.equal(logits(model, ids, iti_start=torch.tensor([1, 2, 3])), plain)
    assert not torch.equal(logits(model, ids), plain)
    assert torch.equal(logits(model, ids, iti_alpha=torch.zeros(3)), plain)
    model.iti_alpha = 0.0
    assert torch.equal(logits(model, ids), plain)
    model.iti_alpha = 2.0
    model.set_iti_directions(None)
    assert torch.equal(logits(model, ids), plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_as_close_to_float32_as_hooks_are(dtype, ids):
    base = tiny_llama()
    directions = some_directions(base.config)
    with hooks(base, directions, 1.5):
        exact = logits(base, ids)
    half = tiny_llama().to(dtype)
    with hooks(half, directions, 1.5):
        hooked_error = (logits(half, ids).float() - exact).abs().mean()
    model = steered_copy(half, directions, iti_alpha=1.5)
    assert (logits(model, ids).float() - exact).abs().mean() < 1.25 * hooked_error


def test_directions_of_the_residual_site_are_added_after_the_output_projection(ids):
    base = tiny_llama(head_dim=16)
    directions = some_directions(base.config, site="residual")
    with hooks(base, directions, 0.7):
        reference = logits(base, ids)
    assert_close(logits(steered_copy(base, directions, iti_alpha=0.7), ids), reference)
    with pytest.raises(ITIDirectionsError, match="residual.*hidden_size"):
        steered_copy(tiny_llama(), some_directions(tiny_config(), site="residual"))


def test_alpha_top_k_and_directions_change_live(base, directions, ids):
    model = steered_copy(base, directions, iti_alpha=1.0)
    for alpha in (-2.0, 0.3, 5.0):
        model.iti_alpha = alpha
        assert model.iti_alpha == alpha
        with hooks(base, directions, alpha):
            assert_close(logits(model, ids), logits(base, ids))
    model.iti_top_k = 2
    with hooks(base, directions.top(2), 5.0):
        assert_close(logits(model, ids), logits(base, ids))
    other = some_directions(base.config, k=5, seed=7)
    model.set_iti_directions(other)
    with hooks(base, other.top(2), 5.0):
        assert_close(logits(model, ids), logits(base, ids))
    assert len(model.iti_directions) == 5


def test_a_change_that_is_refused_changes_nothing(base, directions, ids):
    model = steered_copy(base, directions, iti_alpha=1.0)
    before = logits(model, ids)
    for alpha in ("1", None, float("nan"), float("inf"), True):
        with pytest.raises(ValueError, match="iti_alpha"):
            model.iti_alpha = alpha
    for top_k in (0, -1, 5, 1.5, True):
        with pytest.raises(ValueError, match="iti_top_k"):
            model.iti_top_k = top_k
    with pytest.raises(ValueError, match="iti_scope is 'some'"):
        model.iti_scope = "some"
    other = some_directions(tiny_config(num_hidden_layers=3))
    with pytest.raises(ITIDirectionsError, match="num_hidden_layers=3.*num_hidden_layers=4"):
        model.set_iti_directions(other)
    assert torch.equal(logits(model, ids), before)


def test_each_row_has_its_own_alpha(base, directions, ids):
    model = steered_copy(base, directions)
    alphas = torch.tensor([0.0, 0.8, -1.6])
    with hooks(base, directions, alphas):
        reference = logits(base, ids)
    assert_close(logits(model, ids, iti_alpha=alphas), reference)
    with hooks(base, directions, 0.8):
        assert_close(logits(model, ids, iti_alpha=0.8), logits(base, ids))


def test_iti_start_shifts_from_a_position_on_and_iti_mask_weighs_positions(base, directions, ids):
    model = steered_copy(base, directions, iti_alpha=1.5, iti_scope="generated")
    start = torch.tensor([0, 4, 10])
    weight = (torch.arange(11) >= start[:, None]).float()
    with hooks(base, directions, 1.5, weight):
        reference = logits(base, ids)
    assert_close(logits(model, ids, iti_start=start), reference)
    assert_close(logits(model, ids, iti_mask=weight.bool()), reference)
    mask = torch.rand(3, 11, generator=torch.Generator().manual_seed(5))
    alphas = torch.tensor([0.5, 1.0, -1.0])
    with hooks(base, directions, alphas, mask):
        assert_close(logits(model, ids, iti_mask=mask, iti_alpha=alphas, iti_start=start), logits(base, ids))
    with hooks(base, directions, 1.5, (torch.arange(11) >= 4).float().expand(3, 11)):
        assert_close(logits(model, ids, iti_start=4), logits(base, ids))


def test_right_padded_scoring_gives_each_row_the_logits_it_has_alone(base, directions, ids):
    lengths, start = [11, 7, 4], torch.tensor([5, 2, 3])
    mask = (torch.arange(11) < torch.tensor(lengths)[:, None]).long()
    for scope in ("all", "generated"):
        model = steered_copy(base, directions, iti_alpha=1.5, iti_scope=scope)
        kwargs = {} if scope == "all" else {"iti_start": start}
        batch = logits(model, ids * mask, attention_mask=mask, **kwargs)
        for row, length in enumerate(lengths):
            first = 0 if scope == "all" else start[row]
            with hooks(base, directions, 1.5, (torch.arange(length) >= first).float()[None]):
                assert_close(batch[row, :length], logits(base, ids[row : row + 1, :length])[0])


def test_a_prompt_scored_outside_generate_is_shifted_at_its_last_token_and_says_so(base, directions, ids, caplog):
    model = steered_copy(base, directions, iti_alpha=1.5, iti_scope="generated")
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    weight = torch.zeros(3, 11)
    weight[0, 10] = weight[2, 10] = 1
    weight[1, 6:] = 1
    weight[1, 5] = 1
    with hooks(base, directions, 1.5, weight):
        reference = logits(base, ids, attention_mask=mask)
    model_logger = logging.getLogger("iti_llama.modeling_iti_llama")
    model_logger.addHandler(caplog.handler)
    logging.Logger.warning_once.cache_clear()  # so that this is the first time
    try:
        assert_close(logits(model, ids, attention_mask=mask)[mask.bool()], reference[mask.bool()])
    finally:
        model_logger.removeHandler(caplog.handler)
    assert "only the last is shifted" in caplog.text


def test_wrong_arguments_of_forward_are_refused(base, directions, ids):
    model = steered_copy(base, directions)
    for wrong in (
        {"iti_alpha": torch.ones(2)},
        {"iti_start": torch.tensor([1])},
        {"iti_mask": torch.ones(3, 4)},
        {"iti_alpha": float("nan")},
    ):
        name = next(iter(wrong))
        with pytest.raises(ValueError, match=f"{name} .*expected"):
            logits(model, ids, **wrong)
    with model.disable_iti(), pytest.raises(ValueError, match="disable_iti"):
        logits(model, ids, iti_alpha=1.0)
    with pytest.raises(TypeError, match="forward has no argument iti_aplha; it has iti_alpha, iti_start, iti_mask"):
        logits(model, ids, iti_aplha=3)
    model.set_iti_directions(None)
    for wrong in ({"iti_alpha": 1.0}, {"iti_start": 0}, {"iti_mask": torch.ones(3, 11)}):
        with pytest.raises(ValueError, match="no directions"):
            logits(model, ids, **wrong)


# Cost ---------------------------------------------------------------------------------------------------------------


class Count(TorchDispatchMode):
    """Counts dispatched operations that do work; views are free. Reads of a value by the host are counted apart."""

    VIEWS = ("view", "expand", "slice", "transpose", "unsqueeze", "select", "t", "detach", "alias", "_unsafe_view")
    SYNCS = ("_local_scalar_dense", "item", "equal", "nonzero")

    def __enter__(self):
        self.operations, self.syncs = 0, 0
        return super().__enter__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__.split(".")[0]
        self.operations += name not in self.VIEWS
        self.syncs += name in self.SYNCS
        return function(*args, **(kwargs or {}))


def decode_step(model, ids, **kwargs) -> Count:
    """The operations of one cached forward pass over one token a row."""
    with torch.no_grad():
        cache = model(ids[:, :-1], use_cache=True, **kwargs).past_key_values
        with Count() as count:
            model(ids[:, -1:], past_key_values=cache, use_cache=True, **kwargs)
    return count


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_decode_step_costs_one_operation_a_steered_layer_three_a_pass_and_no_sync(dtype, ids):
    base = tiny_llama().to(dtype)
    directions = some_directions(base.config, k=5, layers=[0, 2])
    plain = decode_step(base, ids)
    for scope in ("all", "generated"):
        model = steered_copy(base, directions, iti_scope=scope)
        one_alpha = decode_step(model, ids)
        assert one_alpha.operations - plain.operations <= 2 + 3
        assert one_alpha.syncs == plain.syncs
        alphas = torch.tensor([0.1, 0.5, 1.0]).to(dtype)
        per_row = decode_step(model, ids, iti_alpha=alphas)
        assert per_row.operations - plain.operations <= 2 + 3
        assert per_row.syncs == plain.syncs
    model.set_iti_directions(None)
    assert decode_step(model, ids).operations == plain.operations


def test_the_steps_of_generate_cost_one_operation_a_steered_layer(base, ids):
    directions = some_directions(base.config, k=5, layers=[0, 2])
    model = steered_copy(base, directions)

    def operations(model, steps: int) -> int:
        with Count() as count:
            model.generate(ids, max_new_tokens=steps, min_new_tokens=steps, do_sample=False)
        return count.operations

    plain = operations(base, 9) - operations(base, 5)
    for scope in ("all", "generated"):
        model.iti_scope = scope
        assert operations(model, 9) - operations(model, 5) - plain <= 4 * (2 + 3)


@pytest.fixture
def compiled_graphs():
    """A backend that runs graphs as they are, and the graphs that it was given."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    yield backend, graphs
    torch._dynamo.reset()


def test_compiles_without_a_break_and_once_more_at_the_first_change_of_alpha(base, directions, ids, compiled_graphs):
    model = steered_copy(base, directions, iti_alpha=0.5)
    backend, graphs = compiled_graphs
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    for alpha in (0.5, 1.5, 0.0, -3.0, 0.7, 2.0, -0.1, 0.3, 4.0, 1.0):
        model.iti_alpha = alpha
        with hooks(base, directions, alpha):
            assert_close(logits(compiled, ids, use_cache=False), logits(base, ids, use_cache=False))
    assert len(graphs) == 2
    for _ in range(2):  # plain Llama is a graph of its own, compiled once
        with model.disable_iti():
            assert_close(logits(compiled, ids, use_cache=False), logits(base, ids, use_cache=False))
        assert_close(logits(compiled, ids, use_cache=False), logits(model, ids, use_cache=False))
    assert len(graphs) == 3
    alphas, start = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([2, 3, 4])
    for factor in (1.0, 0.5):
        kwargs = {"iti_alpha": factor * alphas, "iti_start": start, "use_cache": False}
        assert_close(logits(compiled, ids, **kwargs), logits(model, ids, **kwargs))
    assert len(graphs) == 4


def test_a_compiled_pass_follows_the_config(base, directions, ids, compiled_graphs):
    model = steered_copy(base, directions, iti_alpha=0.5)
    compiled = torch.compile(model, backend=compiled_graphs[0], fullgraph=True)
    logits(compiled, ids, use_cache=False)
    model.config.iti_alpha = 0
    assert torch.equal(logits(compiled, ids, use_cache=False), logits(base, ids, use_cache=False))
    model.config.iti_alpha = 1.5
    for top_k in (2, 1, 3, None):
        model.config.iti_top_k = top_k
        with hooks(base, directions.top(top_k), 1.5):
            assert_close(logits(compiled, ids, use_cache=False), logits(base, ids, use_cache=False))
    other = some_directions(base.config, k=5, seed=7)
    model.set_iti_directions(other)
    with hooks(base, other, 1.5):
        assert_close(logits(compiled, ids, use_cache=False), logits(base, ids, use_cache=False))


def test_an_exported_pass_is_exact(base, directions, ids):
    model = steered_copy(base, directions, iti_alpha=1.5)
    exported = torch.export.export(model, (), {"input_ids": ids, "use_cache": False}).module()
    with torch.no_grad():
        assert torch.equal(exported(input_ids=ids, use_cache=False).logits, logits(model, ids, use_cache=False))


def test_directions_on_another_device_are_copied_there_once_a_pass(base, ids):
    """A layer elsewhere: the meta device stands in for a second one."""
    directions = some_directions(base.config, k=6, layers=range(4))
    model = steered_copy(base, directions)
    behaviours, held = model.model._iti_behaviours()
    shifts = held.totals(behaviours, {"default": 1.0}, torch.device("cpu"))
    steering = Steering(shifts, mask=torch.ones(1, 3, 1))
    elsewhere = torch.zeros(1, 3, 96, device="meta")
    copies = set()
    for layer in model.model.layers:
        assert steering.add("head", layer.self_attn, elsewhere).device.type == "meta"
        copies |= {id(copy) for copy in steering.copies.values()}
    assert len(copies) == 1 and len(behaviours) == 1


# Training -----------------------------------------------------------------------------------------------------------


def test_gradients_flow_past_the_shift_also_with_checkpointing(base, directions, ids):
    model = steered_copy(base, directions, iti_alpha=1.5)
    gradients = []
    for checkpointing in (False, True):
        model.zero_grad()
        model.train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(ids, labels=ids, use_cache=False, iti_start=torch.tensor([1, 2, 3])).loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(bool(g.abs().sum() > 0) for g in gradients[0])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_a_lora_trains_on_top_of_the_steering(base, directions, ids):
    peft = pytest.importorskip("peft")
    model = steered_copy(base, directions, iti_alpha=1.5)
    start = logits(model, ids)
    lora = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    optimizer = torch.optim.Adam([p for p in lora.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(8):
        loss = lora(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    with lora.disable_adapter():
        assert torch.equal(logits(lora, ids), start)


def test_a_backward_pass_uses_the_strength_of_its_forward_pass(base, directions, ids):
    """Checkpointing computes the pass a second time, when the model may have another strength."""

    def gradients(alphas, checkpointing):
        model = steered_copy(base, directions).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        losses = []
        for alpha in alphas:
            model.iti_alpha = alpha
            losses.append(model(ids, labels=ids, use_cache=False).loss)
        sum(losses).backward()
        return [parameter.grad for parameter in model.parameters()]

    for plain, recomputed in zip(gradients((0.5, 0.0), False), gradients((0.5, 0.0), True), strict=True):
        assert torch.allclose(plain, recomputed, atol=1e-6)


# Merging ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overrides", [{}, {"attention_bias": True}, {"tie_word_embeddings": True}], ids=str)
def test_merged_model_is_a_plain_llama_with_the_same_logits(overrides, ids, tmp_path):
    base = tiny_llama(**overrides)
    directions = some_directions(base.config)
    model = steered_copy(base, directions, iti_alpha=1.5)
    merged = model.merge_and_unload()
    assert type(merged) is LlamaForCausalLM
    with hooks(base, directions, 1.5):
        reference = logits(base, ids)
    assert_close(logits(merged, ids), reference)
    assert_close(logits(model, ids), reference)  # the steered model is left as it was
    merged.save_pretrained(tmp_path)
    reloaded, info = LlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert_close(logits(reloaded, ids), reference)
    assert not any(key.startswith(("iti", "base_model")) for key in reloaded.config.to_dict())
    if not overrides:
        biases = [reloaded.model.layers[0].self_attn.get_submodule(f"{x}_proj").bias for x in "qkv"]
        assert all(bool((bias == 0).all()) for bias in biases)


def test_scope_generated_cannot_be_merged(base, directions):
    model = steered_copy(base, directions, iti_scope="generated")
    with pytest.raises(ValueError, match="a bias acts on every position"):
        model.merge_and_unload()


def test_residual_and_head_sites_agree_through_the_output_projection(ids):
    """A shift given at either side of W_O is the same shift: one slice per head, exact."""
    base = tiny_llama(head_dim=16)
    directions = some_directions(base.config, k=3, layers=[1])
    model = steered_copy(base, directions, iti_alpha=1.0)
    with torch.no_grad():
        slices = (base.model.layers[1].self_attn.o_proj.weight @ directions.offsets()[1]).view(4, 16)
    norms = slices.norm(dim=-1)
    residual = ITIDirections(
        heads=torch.tensor([[1, head] for head in range(4)]),
        directions=slices / norms[:, None],
        sigma=norms,
        num_hidden_layers=4,
        num_attention_heads=4,
        head_dim=16,
        site="residual",
    )
    assert_close(logits(steered_copy(base, residual, iti_alpha=1.0), ids), logits(model, ids))


def test_random_models_agree_with_hooks_for_many_shapes(ids):
    for seed, (layers, k, scope) in enumerate(itertools.product((1, 3), (1, 3), ("all", "generated"))):
        base = tiny_llama(seed=seed, num_hidden_layers=layers)
        directions = some_directions(base.config, k=k, seed=seed, layers=range(layers))
        model = steered_copy(base, directions, iti_alpha=-0.8, iti_scope=scope)
        with hooks(base, directions, -0.8):
            assert_close(logits(model, ids, iti_start=0), logits(base, ids))
