"""States in which the steering could be something other than what the model says it is."""

import asyncio
import copy
import inspect
import logging
import pickle
import shutil
import threading

import numpy as np
import pytest
import torch
import transformers
from reference import SCOPE_POSITIONS, assert_close, hooks, some_directions, tiny_llama
from steered import logits, steered_copy
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CompileConfig,
    GenerationConfig,
    GenerationMixin,
    LlamaConfig,
    LogitsProcessorList,
)

from iti_llama import ITILlamaConfig, ITILlamaForCausalLM
from iti_llama.generation_iti_llama import record_heads


@pytest.fixture
def model(base, directions):
    return steered_copy(base, directions, iti_alpha=1.5)


def tokens_of(model, ids, **kwargs):
    return model.generate(
        ids, **({"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": 0} | kwargs)
    )


# Positions and strengths ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [3, torch.tensor(3), torch.tensor([3, 3, 3])], ids=["int", "0-d", "rows"])
def test_a_start_counts_the_tokens_in_the_cache(model, base, directions, ids, start):
    weight = (torch.arange(11) >= 3).float().expand(3, 11)
    with hooks(base, directions, 1.5, weight):
        reference = logits(base, ids)
    with torch.no_grad():
        cache = model(ids[:, :6], use_cache=True, iti_start=start).past_key_values
        rest = model(ids[:, 6:], past_key_values=cache, iti_start=start).logits
    assert_close(rest, reference[:, 6:])


def test_starts_and_masks_may_be_lists_and_arrays(model, ids):
    starts, mask = [3, 5, 7], torch.rand(3, 11, generator=torch.Generator().manual_seed(2))
    expected = logits(model, ids, iti_start=torch.tensor(starts)), logits(model, ids, iti_mask=mask)
    for form in (list, np.array):
        assert torch.equal(logits(model, ids, iti_start=form(starts)), expected[0])
        assert torch.equal(logits(model, ids, iti_mask=form(mask.tolist())), expected[1])
    with pytest.raises(ValueError, match=r"iti_start has shape \[2\]; expected \[3\]"):
        logits(model, ids, iti_start=[1, 2])


def test_strengths_of_rows_do_not_pass_for_the_prompt(model, ids):
    """transformers takes the number of rows from the first tensor that it meets."""
    embeds = model.get_input_embeddings()(ids)
    expected = tokens_of(model, ids)[:, 11:]
    given = {"iti_alpha": torch.tensor([1.5]), "inputs_embeds": embeds, "max_new_tokens": 8, "min_new_tokens": 8}
    assert torch.equal(model.generate(**given, do_sample=False, pad_token_id=0), expected)
    assert model.generate(iti_alpha=torch.tensor(0.5), max_new_tokens=3).shape == (1, 4)


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), np.int64(2), torch.tensor(0.5), np.array(0.5)])
def test_numbers_of_numpy_and_torch_are_numbers(model, base, directions, ids, number):
    model.iti_alpha = number
    assert type(model.iti_alpha) is float and model.iti_alpha == float(number)
    with hooks(base, directions, float(number)):
        assert_close(logits(model, ids), logits(base, ids))
        expected = tokens_of(base, ids)
    assert torch.equal(tokens_of(model, ids, iti_alpha=number), expected)


@pytest.mark.parametrize("wrong", ["0.5", True, np.bool_(True), None, float("nan"), [1.0], complex(1, 1)])
def test_what_is_no_number_is_refused_everywhere(model, ids, wrong):
    with pytest.raises(ValueError, match="iti_alpha is .*expected a finite number"):
        model.iti_alpha = wrong
    if wrong not in (None, [1.0]):
        with pytest.raises(ValueError, match="iti_alpha is .*expected a finite number"):
            tokens_of(model, ids, iti_alpha=wrong)
    assert model.iti_alpha == 1.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("alpha", [0.8, -1.3, 0.1])
def test_the_alpha_of_a_call_and_the_models_own_give_the_same_bits(dtype, alpha, ids):
    base = tiny_llama().to(dtype)
    model = steered_copy(base, some_directions(base.config), iti_alpha=0.3)
    called = logits(model, ids, iti_alpha=torch.full((3,), alpha)), logits(model, ids, iti_alpha=alpha)
    model.iti_alpha = alpha
    own = logits(model, ids)
    assert torch.equal(called[0], own) and torch.equal(called[1], own)


def test_the_config_is_the_state(model, base, directions, ids):
    model.config.iti_alpha = 0.4
    model.config.iti_top_k = 2
    assert (model.iti_alpha, model.iti_top_k) == (0.4, 2)
    with hooks(base, directions.top(2), 0.4):
        assert_close(logits(model, ids), logits(base, ids))
    model.config.iti_scope = "Generated"
    with pytest.raises(ValueError, match="iti_scope is 'Generated'"):
        logits(model, ids)


def test_another_dtype_and_back_loses_nothing(model, base, directions, ids):
    plain, weights = copy.deepcopy(base), base.state_dict()
    for either in (model, plain):
        either.to(torch.bfloat16).to(torch.float32).load_state_dict(weights)
    with hooks(plain, directions, 1.5):
        assert torch.equal(logits(model, ids), logits(plain, ids))


def test_generate_without_a_prompt_starts_where_llama_starts(model, base, directions):
    for scope in ("all", "generated"):
        model.iti_scope = scope
        with hooks(base, directions, 1.5, SCOPE_POSITIONS[scope]):
            expected = base.generate(max_new_tokens=6, do_sample=False)
        assert torch.equal(model.generate(max_new_tokens=6, do_sample=False), expected)


# Blocks and contexts ----------------------------------------------------------------------------------------------


def test_blocks_may_end_in_any_order(model, base, ids):
    plain, steered = logits(base, ids), logits(model, ids)
    first, second = model.disable_iti(), model.disable_iti()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.equal(logits(model, ids), plain)
    second.__exit__(None, None, None)
    assert torch.equal(logits(model, ids), steered)


def test_a_block_holds_for_its_own_thread(model, base, ids):
    plain, steered = logits(base, ids), logits(model, ids)
    inside, leave, found = threading.Event(), threading.Event(), {}

    def request():
        with model.disable_iti():
            inside.set()
            leave.wait(10)
            found["inside"] = logits(model, ids)
            found["tokens"] = tokens_of(model, ids)
        found["after"] = logits(model, ids)

    thread = threading.Thread(target=request)
    thread.start()
    inside.wait(10)
    assert torch.equal(logits(model, ids), steered)
    with model.disable_iti():
        leave.set()
        thread.join()
        assert torch.equal(logits(model, ids), plain)
    assert torch.equal(found["inside"], plain) and torch.equal(found["after"], steered)
    assert torch.equal(found["tokens"], tokens_of(base, ids))
    assert torch.equal(logits(model, ids), steered)


def test_compiled_passes_of_generate_see_the_block_of_their_own_thread_alone(model, base, ids):
    compiled = CompileConfig(backend="eager", fullgraph=True)
    compiled._compile_all_devices = True  # a GPU compiles with a static cache by itself
    static = {"cache_implementation": "static", "compile_config": compiled}
    inside, leave = threading.Event(), threading.Event()

    def request():
        with model.disable_iti():
            inside.set()
            leave.wait(60)

    expected, thread = tokens_of(model, ids), threading.Thread(target=request)
    thread.start()
    inside.wait(10)
    try:
        assert torch.equal(tokens_of(model, ids, **static), expected)
        assert torch.equal(tokens_of(model, ids, iti_alpha=torch.tensor([1.5, 1.5, 1.5]), **static), expected)
        with model.disable_iti():
            assert torch.equal(tokens_of(model, ids, **static), tokens_of(base, ids))
    finally:
        leave.set()
        thread.join()


def test_a_block_holds_for_its_own_task_and_model(model, base, directions, ids):
    other = steered_copy(base, directions, iti_alpha=1.5)
    plain, steered = logits(base, ids), logits(model, ids)

    async def request(off: bool):
        if not off:
            await asyncio.sleep(0)
            return logits(model, ids)
        with model.disable_iti():
            await asyncio.sleep(0.01)
            assert torch.equal(logits(other, ids), steered)
            return logits(model, ids)

    async def both():
        return await asyncio.gather(request(True), request(False))

    off, on = asyncio.run(both())
    assert torch.equal(off, plain) and torch.equal(on, steered)


def test_merging_and_strengths_inside_a_block_are_refused(model, ids):
    with model.disable_iti():
        with pytest.raises(ValueError, match="off inside disable_iti"):
            model.merge_and_unload()
        with pytest.raises(ValueError, match="passed inside disable_iti"):
            tokens_of(model, ids, iti_alpha=torch.tensor([0.5, 1.0, 2.0]))


def test_a_replica_in_another_thread_is_plain_inside_the_block(model, base, ids):
    """DataParallel runs shallow copies in threads of their own."""
    found = []
    with model.disable_iti():
        replica = model.model._replicate_for_data_parallel()
        replica._modules, replica._buffers = model.model._modules, model.model._buffers
        thread = threading.Thread(target=lambda: found.append(replica(ids).last_hidden_state.detach()))
        thread.start()
        thread.join()
    assert torch.equal(found[0], base.model(ids).last_hidden_state)


# Other models in the same call ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["all", "generated"])
def test_an_assistant_keeps_its_own_strength(model, base, directions, ids, scope):
    helper = steered_copy(base, directions, iti_alpha=-2.0)
    model.iti_scope, seen = scope, []
    helper.register_forward_pre_hook(lambda m, a, kw: seen.append(kw.get("iti_alpha")), with_kwargs=True)
    row = ids[:1]
    tokens = tokens_of(model, row, iti_alpha=1.2, assistant_model=helper, min_new_tokens=None)
    with hooks(base, directions, 1.2, SCOPE_POSITIONS[scope]):
        assert torch.equal(tokens, tokens_of(base, row, min_new_tokens=None))
    assert seen and all(alpha is None for alpha in seen)


def test_a_model_called_inside_another_ones_generate_keeps_its_own_strength(model, base, directions, ids):
    other, found = steered_copy(base, directions, iti_alpha=-1.0), []
    expected = logits(other, ids)

    def processor(input_ids, scores):
        found.append(logits(other, ids))
        return scores

    tokens_of(model, ids, iti_alpha=torch.tensor([0.0, 2.0, -2.0]), logits_processor=LogitsProcessorList([processor]))
    assert len(found) == 8 and all(torch.equal(one, expected) for one in found)


@pytest.mark.parametrize("scope", ["all", "generated"])
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_the_unconditional_branch_of_guided_decoding_is_steered_as_the_call(
    model, base, directions, ids, scope, use_cache, alpha
):
    model.iti_scope = scope
    negative = ids[:, 3:8].flip(1)
    kwargs = {"guidance_scale": 2.0, "negative_prompt_ids": negative, "use_cache": use_cache}
    with hooks(base, directions, alpha, SCOPE_POSITIONS[scope]):
        # the reference always has a cache: a hook on the last position of a pass is then right
        expected = tokens_of(base, ids, **kwargs | {"use_cache": True})
    assert torch.equal(tokens_of(model, ids, iti_alpha=alpha, **kwargs), expected)


@pytest.mark.parametrize("guide", ["another model", "this model"])
def test_a_guidance_processor_of_the_caller_keeps_its_model_and_is_not_changed(model, base, directions, ids, guide):
    from transformers import UnbatchedClassifierFreeGuidanceLogitsProcessor as Guidance

    other = tiny_llama(seed=9) if guide == "another model" else model
    processor = Guidance(2.0, other, unconditional_ids=ids[:, :3])
    processors = LogitsProcessorList([processor])
    before = dict(processor.unconditional_context)
    found = tokens_of(model, ids, iti_alpha=0.8, logits_processor=processors)
    assert processors == [processor] and processor.model is other
    if guide == "this model":
        assert processor.unconditional_context == before
    with hooks(base, directions, 0.8):
        plain = other if guide == "another model" else base
        guidance = Guidance(2.0, plain, unconditional_ids=ids[:, :3])
        assert torch.equal(found, tokens_of(base, ids, logits_processor=LogitsProcessorList([guidance])))


@pytest.mark.skipif(int(transformers.__version__[0]) < 5, reason="transformers 4.57 has neither")
@pytest.mark.parametrize("kind", [{"penalty_alpha": 0.6, "top_k": 4}, {"dola_layers": "low"}], ids=str)
def test_contrastive_search_and_dola_are_refused_with_and_without_remote_code(model, ids, kind):
    with pytest.raises(ValueError, match="requires `trust_remote_code=True`"):
        tokens_of(model, ids, **kind)
    with pytest.raises(OSError, match="custom_generate would replace the steering; not supported"):
        tokens_of(model, ids, trust_remote_code=True, **kind)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_made_in_a_block_starts_without_blocks(model, base, ids, copied):
    plain, steered = logits(base, ids), logits(model, ids)
    with model.disable_iti():
        other = copied(model)
        assert torch.equal(logits(other, ids), steered) and torch.equal(logits(model, ids), plain)
    other.model._is_replica = True  # as DataParallel's threads and compiled passes, which see no contexts
    assert torch.equal(logits(other, ids), steered)
    del other.model._is_replica
    with other.disable_iti():
        assert torch.equal(logits(other, ids), plain) and torch.equal(logits(model, ids), steered)


# Wrappers ---------------------------------------------------------------------------------------------------------


def test_the_strength_is_set_through_peft(model, base, directions, ids):
    peft = pytest.importorskip("peft")
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=True))
    wrapped.set_iti_alpha(0.7)
    assert wrapped.iti_alpha == model.iti_alpha == 0.7
    with hooks(base, directions, 0.7):
        assert_close(logits(wrapped, ids), logits(base, ids))
    torch.nn.DataParallel(model).module.set_iti_alpha(0.2)
    assert model.iti_alpha == 0.2


@pytest.mark.parametrize("before", [True, False], ids=["lora first", "directions first"])
def test_the_shifted_heads_pass_through_a_lora_on_o_proj(base, directions, ids, before):
    """As they pass through W_O: steering and LoRA do not depend on the order in which they came, nor on merging."""
    peft = pytest.importorskip("peft")
    model = steered_copy(base, None if before else directions, iti_alpha=1.5)
    config = peft.LoraConfig(r=4, target_modules=["o_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(model, config)
    if before:
        model.set_iti_directions(directions)
    torch.manual_seed(0)
    plain = peft.get_peft_model(copy.deepcopy(base), config)
    with hooks(plain.base_model.model, directions, 1.5):
        expected = logits(plain, ids)
    assert_close(logits(wrapped, ids), expected)
    with pytest.raises(ValueError, match="PEFT adapter is on it: merge that first"):
        wrapped.base_model.model.merge_and_unload()
    wrapped.merge_adapter()
    model.iti_top_k = None
    assert_close(logits(wrapped, ids), expected)
    wrapped.unmerge_adapter()
    assert_close(logits(wrapped, ids), expected)


@pytest.mark.parametrize("virtual", [4, 12, 30])
@pytest.mark.parametrize("kind", ["PrefixTuningConfig", "PromptTuningConfig"])
def test_virtual_tokens_do_not_move_where_the_prompt_ends(ids, virtual, kind):
    """Scope "generated" shifts the prompt's last token and what follows, and no other position of the prompt."""
    peft = pytest.importorskip("peft")
    base = tiny_llama(head_dim=16)  # PEFT takes hidden_size / heads for it
    directions = some_directions(base.config)
    config = getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=virtual)
    model = steered_copy(base, directions, iti_alpha=2.5, iti_scope="generated")
    torch.manual_seed(0)
    ours = peft.get_peft_model(model, config)
    torch.manual_seed(0)
    plain = peft.get_peft_model(copy.deepcopy(base), config)
    settings = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "eos_token_id": None}
    with hooks(plain.base_model, directions, 2.5, SCOPE_POSITIONS["generated"]):
        expected = tokens_of_peft(plain, settings)
    assert torch.equal(tokens_of_peft(ours, settings), expected)
    assert not torch.equal(expected, tokens_of_peft(plain, settings))


def tokens_of_peft(model, settings):
    return model.generate(**settings, max_new_tokens=8, do_sample=False, pad_token_id=0)


def test_a_lora_of_an_adapter_form_is_put_on_when_its_folder_is_loaded(steered, adapter_dir, ids, tmp_path):
    peft = pytest.importorskip("peft")
    base = AutoModelForCausalLM.from_pretrained(adapter_dir)
    wrapped = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    expected = logits(wrapped, ids)
    wrapped.save_pretrained(tmp_path / "lora")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "lora")
    assert_close(logits(loaded, ids), expected)
    assert (logits(steered, ids) - expected).abs().max() > 0.1


def test_a_base_with_a_lora_beside_it_is_refused(base_dir, adapter_dir, directions, tmp_path):
    peft = pytest.importorskip("peft")
    folder = shutil.copytree(base_dir, tmp_path / "base")
    peft.get_peft_model(tiny_llama(), peft.LoraConfig(target_modules=["q_proj"])).save_pretrained(folder)
    for load in (
        lambda: ITILlamaForCausalLM.from_base(folder, directions),
        lambda: AutoModelForCausalLM.from_pretrained(adapter_dir, base_model_name_or_path=str(folder)),
    ):
        with pytest.raises(ValueError, match=f"{folder}: adapter_config.json"):
            load()


def test_dynamic_int8_is_steered_and_follows_top_k(base, directions, ids):
    quantised = torch.ao.quantization.quantize_dynamic(steered_copy(base, directions, iti_alpha=1.5))
    plain = torch.ao.quantization.quantize_dynamic(copy.deepcopy(base))
    for top_k in (None, 3, 1):
        quantised.iti_top_k = top_k
        with hooks(plain, directions.top(top_k), 1.5):
            assert_close(logits(quantised, ids), logits(plain, ids))


# Loading and changing ---------------------------------------------------------------------------------------------


def test_a_state_dict_alone_is_not_loaded_unsteered_in_silence(base, directions, ids):
    kept = {k: v for k, v in base.config.to_dict().items() if k not in ("model_type", "architectures")}
    with pytest.raises(ValueError, match="but there is no repo"):
        ITILlamaForCausalLM.from_pretrained(None, config=ITILlamaConfig(**kept), state_dict=base.state_dict())
    config = ITILlamaConfig(**kept, iti_directions_file=None)
    model = ITILlamaForCausalLM.from_pretrained(None, config=config, state_dict=base.state_dict())
    assert torch.equal(logits(model, ids), logits(base, ids))


def test_a_traced_pass_leaves_nothing_behind(model, base, directions, ids):
    model.iti_top_k = 2
    torch.export.export(model, (ids,), {"use_cache": False})
    with torch.inference_mode():
        model(ids)
    with hooks(base, directions.top(2), 1.5):
        assert_close(logits(model, ids), logits(base, ids))
    alpha = torch.tensor(1.5, requires_grad=True)
    model(ids, iti_alpha=alpha).logits.sum().backward()
    assert alpha.grad.abs() > 0


def test_directions_set_under_another_default_device_lie_beside_the_others(base, directions, ids):
    model = steered_copy(base, directions, iti_alpha=1.5)
    with torch.device("meta"):
        model.set_iti_directions(directions)
    model.iti_top_k = 2
    with hooks(base, directions.top(2), 1.5):
        assert_close(logits(model, ids), logits(base, ids))


def test_more_heads_than_there_are_is_refused_where_the_config_alone_says_it(model, directions, ids, tmp_path):
    model.config.iti_top_k = len(directions) + 1
    for use in (lambda: model(ids), lambda: model.save_pretrained(tmp_path / "repo")):
        with pytest.raises(ValueError, match=f"iti_top_k is {len(directions) + 1}, but the directions hold"):
            use()
    assert not (tmp_path / "repo").exists()


def test_an_adapter_does_not_replace_its_own_base(base_dir, directions):
    model, before = ITILlamaForCausalLM.from_base(base_dir, directions), (base_dir / "config.json").read_bytes()
    with pytest.raises(ValueError, match="is the base of this model.*; save elsewhere"):
        model.save_pretrained(base_dir)
    assert (base_dir / "config.json").read_bytes() == before and not (base_dir / "iti_directions.safetensors").exists()


def test_a_config_of_another_kind_is_refused(adapter_dir):
    with pytest.raises(ValueError, match="config is a LlamaConfig; expected an ITILlamaConfig"):
        ITILlamaForCausalLM.from_pretrained(adapter_dir, config=LlamaConfig())


def test_a_base_in_a_subfolder_is_read_and_named_whole(base, directions, ids, tmp_path):
    base.save_pretrained(tmp_path / "sub")
    tiny_llama(seed=9).save_pretrained(tmp_path)
    model = ITILlamaForCausalLM.from_base(tmp_path, directions, subfolder="sub", alpha=1.5)
    with hooks(base, directions, 1.5):
        reference = logits(base, ids)
    assert_close(logits(model, ids), reference)
    model.save_pretrained(tmp_path / "adapter")
    assert_close(logits(ITILlamaForCausalLM.from_pretrained(tmp_path / "adapter"), ids), reference)
    with pytest.raises(ValueError, match="subfolder is 'sub': an adapter can only name"):
        ITILlamaForCausalLM.from_base("meta/base", directions, subfolder="sub")


CHANGES = ["training", "in place", "one row", "data", "lora merged", "a new weight"]


@pytest.mark.parametrize("change", [*CHANGES, "state_dict"])
def test_an_adapter_does_not_lose_weights_in_silence(steered, ids, tmp_path, change):
    kwargs = {}
    if change == "one row":
        with torch.no_grad():
            steered.model.embed_tokens.weight[50].add_(1e-3)
    elif change == "training":
        optimizer = torch.optim.SGD(steered.parameters(), lr=1e-3)
        steered(ids, labels=ids).loss.backward()
        optimizer.step()
    elif change == "in place":
        with torch.no_grad():
            steered.model.embed_tokens.weight[50] += 1
    elif change == "data":
        steered.model.norm.weight.data.mul_(2)
    elif change == "lora merged":
        peft = pytest.importorskip("peft")
        config = peft.LoraConfig(r=2, target_modules=["o_proj"], init_lora_weights=False)
        steered = peft.get_peft_model(steered, config).merge_and_unload()
    elif change == "a new weight":
        steered.model.layers[0].self_attn.q_proj.bias = torch.nn.Parameter(torch.ones(96))
    else:
        kwargs = {"state_dict": steered.state_dict()}
    with pytest.raises(ValueError, match="the adapter form saves no weights"):
        steered.save_pretrained(tmp_path / "out", **kwargs)
    assert not (tmp_path / "out").exists()
    if not kwargs and change not in ("lora merged", "a new weight"):
        steered.config.base_model_name_or_path = None
        steered.save_pretrained(tmp_path / "out")
        assert torch.equal(logits(ITILlamaForCausalLM.from_pretrained(tmp_path / "out"), ids), logits(steered, ids))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_an_adapter_is_saved_unless_its_weights_were_changed(steered, tmp_path, copied):
    copied(steered).save_pretrained(tmp_path / "out")
    other = copied(steered)
    for model in (other, steered):
        with torch.no_grad():
            model.model.norm.weight.mul_(2)
        with pytest.raises(ValueError, match="weight may not be what"):
            copied(model).save_pretrained(tmp_path / "changed")


def test_an_adapter_that_was_used_and_cast_is_saved(steered, ids, tmp_path):
    steered.generate(ids, max_new_tokens=3)
    steered.to(torch.bfloat16).save_pretrained(tmp_path)
    assert len(ITILlamaForCausalLM.from_pretrained(tmp_path).iti_directions) == 4


@pytest.mark.parametrize(
    "field,value", [("rms_norm_eps", 1e-2), ("hidden_act", "gelu"), ("rope", None), ("mlp_bias", True)]
)
def test_a_base_that_computes_something_else_is_refused(adapter_dir, tmp_path, field, value):
    fields = {field: value} if field != "rope" else {"max_position_embeddings": 256}
    other = tiny_llama(**fields)
    if field == "rope":
        rope = dict(getattr(other.config, "rope_parameters", None) or other.config.rope_scaling) | {"factor": 8.0}
        setattr(other.config, "rope_parameters" if hasattr(other.config, "rope_parameters") else "rope_scaling", rope)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=f"{field}.*but config.json says"):
        ITILlamaForCausalLM.from_pretrained(adapter_dir, base_model_name_or_path=str(tmp_path / "other"))


def test_a_model_loaded_in_inference_mode_can_be_changed_outside_it(adapter_dir, base, directions, ids):
    with torch.inference_mode():
        model = ITILlamaForCausalLM.from_pretrained(adapter_dir)
    model.iti_alpha = 0.6
    model.iti_top_k = 3
    with hooks(base, directions.top(3), 0.6):
        assert_close(logits(model, ids), logits(base, ids))


def built_by_hand(how, adapter_dir, base, base_dir):
    """A model of a config that names directions, made without `from_pretrained`, which alone reads them."""
    config = AutoConfig.from_pretrained(adapter_dir)
    if how == "from_config":
        model = AutoModelForCausalLM.from_config(config)
        model.load_state_dict(base.state_dict())
        return model
    accelerate = pytest.importorskip("accelerate")
    with accelerate.init_empty_weights():
        model = AutoModelForCausalLM.from_config(config)
    return accelerate.load_checkpoint_and_dispatch(model, base_dir, device_map={"": "cpu"})


@pytest.mark.parametrize("how", ["from_config", "init_empty_weights"])
def test_a_model_without_the_directions_that_its_config_names_is_never_taken_for_steered(
    how, adapter_dir, base, base_dir, directions, ids, tmp_path
):
    model = built_by_hand(how, adapter_dir, base, base_dir)
    for use in (
        lambda: logits(model, ids),
        lambda: model.model(ids),
        lambda: tokens_of(model, ids),
        lambda: model.save_pretrained(tmp_path / "out"),
        model.merge_and_unload,
    ):
        with pytest.raises(ValueError, match=r"names iti_directions.safetensors.*load_iti_directions\(PATH\)"):
            use()
    assert not (tmp_path / "out").exists()
    model.load_iti_directions(adapter_dir / "iti_directions.safetensors")
    with hooks(base, directions, 1.5):
        assert_close(logits(model, ids), logits(base, ids))
    assert model.config.iti_directions_file == "iti_directions.safetensors"


def test_directions_set_before_the_weights_steer_them(base, directions, ids):
    kept = {k: v for k, v in base.config.to_dict().items() if k not in ("model_type", "architectures")}
    with torch.device("meta"):
        model = ITILlamaForCausalLM(ITILlamaConfig(**kept, iti_alpha=1.5))
    model.set_iti_directions(directions)
    model.to_empty(device="cpu").load_state_dict(base.state_dict())
    model.model.rotary_emb = copy.deepcopy(base.model.rotary_emb)
    with hooks(base, directions, 1.5):
        assert_close(logits(model.eval(), ids), logits(base, ids))


def test_a_checkpoint_loaded_back_after_training_is_steered_as_its_own_copy(steered, ids, tmp_path):
    """Nothing of the steering depends on W_O, so none of it is left from the weights before."""
    optimizer = torch.optim.SGD(steered.parameters(), lr=1e-2)
    for step in range(4):
        steered(ids, labels=ids).loss.backward()
        optimizer.step()
        if step == 1:
            best = copy.deepcopy(steered.state_dict())
    steered.load_state_dict(best)
    steered.config.base_model_name_or_path = None
    steered.save_pretrained(tmp_path)
    assert torch.equal(logits(ITILlamaForCausalLM.from_pretrained(tmp_path), ids), logits(steered, ids))


def test_continuous_batching_is_refused_before_anything_runs(model, ids, tmp_path):
    model.iti_scope = "generated"
    with pytest.raises(ValueError, match="use scope 'all'"):
        model.generate_batch([[5, 6, 7]])
    model.iti_scope = "all"
    with model.disable_iti(), pytest.raises(ValueError, match="nor disable_iti"):
        model.generate_batch([[5, 6, 7]])


@pytest.mark.skipif(
    "paged" not in inspect.getsource(GenerationMixin.generate), reason="generate of transformers 4 has no paged cache"
)
@pytest.mark.parametrize("name,value", [("iti_alpha", 0.0), ("iti_gate", False)])
def test_a_strength_in_the_config_of_a_request_does_not_get_lost_in_continuous_batching(model, ids, name, value):
    request = GenerationConfig(max_new_tokens=2, **{name: value})
    with pytest.raises(ValueError, match=f"the generation config has an {name}, but continuous batching"):
        model.generate(ids, cache_implementation="paged", generation_config=request)


@pytest.mark.skipif(transformers.__version__ < "5", reason="transformers 4 cannot write such a config")
def test_a_config_that_says_that_nothing_is_quantised_can_be_merged(model, ids):
    model.config.quantization_config = None
    assert_close(logits(model.merge_and_unload(), ids), logits(model, ids))


def test_provenance_that_is_no_text_is_named(directions):
    from dataclasses import replace

    from iti_llama import ITIDirectionsError

    with pytest.raises(ITIDirectionsError, match="provenance 'seed' is 3; expected texts"):
        replace(directions, provenance={"seed": 3})


def test_training_an_adapter_form_says_at_once_that_its_weights_will_not_be_saved(steered, caplog):
    loading_logger = logging.getLogger("iti_llama.loading_iti_llama")
    loading_logger.addHandler(caplog.handler)
    logging.Logger.warning_once.cache_clear()
    try:
        steered.eval()
        assert "is trained" not in caplog.text
        steered.train()
        assert "is trained, but the adapter form on" in caplog.text
        caplog.clear()
        logging.Logger.warning_once.cache_clear()
        peft = pytest.importorskip("peft")
        peft.get_peft_model(steered, peft.LoraConfig(target_modules=["q_proj"])).train()
        assert "is trained" not in caplog.text
    finally:
        loading_logger.removeHandler(caplog.handler)


def test_setters_in_one_thread_and_passes_in_others_leave_what_the_config_says(base, directions, ids):
    """A pass takes config and directions once: it is that of one of the strengths or sets, and never of a mix."""
    model, other = steered_copy(base, directions, iti_alpha=0.5), some_directions(base.config, k=3, seed=8)
    expected, stop, wrong = [], threading.Event(), []
    for given in (directions, other):
        for alpha in (0.5, -1.5):
            with hooks(base, given, alpha):
                expected.append(logits(base, ids))

    def passes():
        while not stop.is_set():
            output = logits(model, ids)
            if not any(torch.allclose(output, reference, atol=1e-4) for reference in expected):
                wrong.append(output)

    threads = [threading.Thread(target=passes) for _ in range(2)]
    [thread.start() for thread in threads]
    for turn in range(60):
        model.iti_alpha = (0.5, -1.5)[turn % 2]
        model.set_iti_directions((directions, other)[turn % 3 == 0])
    stop.set()
    [thread.join() for thread in threads]
    assert not wrong
    with hooks(base, model.iti_directions, model.iti_alpha):
        assert_close(logits(model, ids), logits(base, ids))


@pytest.mark.parametrize("refused", [10**400, 1e39, -1e300, torch.zeros((), device="meta"), "a/path"], ids=str)
def test_a_strength_that_float32_cannot_hold_changes_nothing(model, base, directions, ids, refused):
    changes = [lambda: setattr(model, "iti_alpha", refused), lambda: model.set_iti({"default": refused})]
    if not isinstance(refused, torch.Tensor):
        changes.append(lambda: model.generate(ids, iti_alpha=refused, max_new_tokens=1))
    for change in changes:
        with pytest.raises(ValueError, match="iti_alpha is "):
            change()
    assert model.config.iti_alpha == 1.5
    with pytest.raises((ValueError, AttributeError)):
        model.set_iti_directions("a/path")
    with hooks(base, directions, 1.5):
        assert_close(logits(model, ids), logits(base, ids))


def test_a_copy_made_while_another_thread_reads_a_gate_is_whole(base, directions, ids):
    model = steered_copy(base, directions, iti_alpha=1.5)
    stop = threading.Event()

    def read():
        while not stop.is_set():
            record_heads(model.model, lambda heads: heads[:, -1], input_ids=ids)

    thread = threading.Thread(target=read)
    thread.start()
    copies = [copied(model) for copied in (copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))) * 5]
    stop.set()
    thread.join()
    for other in copies:
        assert torch.equal(logits(other, ids), logits(model, ids))
        assert not any(module._forward_pre_hooks or module._forward_hooks for module in other.modules())
