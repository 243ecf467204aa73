"""Gates: the rows that they let through are steered, the others are plain Llama, whatever the decoding machinery."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from reference import some_directions, tiny_llama
from steered import logits, steered_copy
from transformers import GenerationConfig

from iti_llama import ITIDirections, ITILlamaForCausalLM
from iti_llama.iti_directions import ITIGate
from iti_llama.toolkit.export.gguf_patch import patch_gguf
from iti_llama.toolkit.export.select_behaviours import ExportError
from iti_llama.toolkit.export.source import open_source


NEW = {"max_new_tokens": 10, "min_new_tokens": 10, "do_sample": False, "pad_token_id": 0}
ALPHA = 2.5


@pytest.fixture(scope="module")
def base():
    return tiny_llama(seed=4)


@pytest.fixture(scope="module")
def ids():
    return torch.randint(3, 97, (6, 11), generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def logits_and_cache(model, ids):
    return model(ids, use_cache=True, iti_gate=False).past_key_values


def scores_by_hooks(base, ids, gate, mask=None):
    """The gate's score of each prompt alone, by a hook on a plain Llama and float64."""
    found = []
    for row in range(len(ids)):
        alone, seen = ids[row : row + 1] if mask is None else ids[row : row + 1, mask[row].bool()], {}
        handles = [
            layer.self_attn.o_proj.register_forward_pre_hook(
                lambda m, a, i=i, seen=seen: seen.update({i: a[0][0, -1].double()})
            )
            for i, layer in enumerate(base.model.layers)
        ]
        logits(base, alone)
        [handle.remove() for handle in handles]
        score = float(gate.bias)
        for (layer, head), weights in zip(gate.heads.tolist(), gate.weights.double(), strict=True):
            score += float(seen[layer][head * 24 : head * 24 + 24] @ weights)
        found.append(score)
    return torch.tensor(found)


@pytest.fixture(scope="module")
def gate(base, ids):
    """Random weights; lets through the upper half of the six prompts, hard."""
    generator = torch.Generator().manual_seed(7)
    gate = ITIGate(
        torch.tensor([[1, 2], [3, 0]]), torch.randn(2, 24, generator=generator), torch.tensor([0.2]), torch.zeros(2)
    )
    middle = scores_by_hooks(base, ids, gate).sort()[0][2:4].mean().float()
    return replace(gate, threshold=middle.repeat(2))


@pytest.fixture
def model(base, gate):
    return steered_copy(base, replace(some_directions(base.config, k=6, seed=2), gate=gate), iti_alpha=ALPHA)


@pytest.fixture
def ungated(base):
    return steered_copy(base, some_directions(base.config, k=6, seed=2), iti_alpha=ALPHA)


WAYS = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "no cache": {"use_cache": False},
    "static cache": {"cache_implementation": "static"},
    "sampling": {"do_sample": True, "temperature": 0.7, "num_return_sequences": 2},
    "chunked prefill": {"prefill_chunk_size": 4},
    "guided": {"guidance_scale": 1.5},
}


@pytest.mark.parametrize("scope", ["all", "generated"])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_decoding_gives_each_row_its_own_strength(model, ungated, base, gate, ids, way, scope):
    model.iti_scope = ungated.iti_scope = scope
    opened = (scores_by_hooks(base, ids, gate) >= gate.threshold[0]).float()
    assert opened.sum() == 3
    mask = torch.ones_like(ids)
    torch.manual_seed(0)
    gated = model.generate(ids, attention_mask=mask, **(NEW | WAYS[way]))
    torch.manual_seed(0)
    told = ungated.generate(ids, attention_mask=mask, iti_alpha=ALPHA * opened, **(NEW | WAYS[way]))
    assert torch.equal(gated, told)
    torch.manual_seed(0)
    plain = base.generate(ids, attention_mask=mask, **(NEW | WAYS[way]))
    rows = opened.repeat_interleave(WAYS[way].get("num_return_sequences", 1)).bool()
    if way != "sampling":
        assert torch.equal(gated[~rows], plain[~rows])
    assert not torch.equal(gated[rows], plain[rows])


def test_with_prompt_lookup_each_row_alone(model, ungated, base, gate, ids):
    for row, score in enumerate(scores_by_hooks(base, ids, gate)):
        alone, expected = ids[row : row + 1], ungated if score >= gate.threshold[0] else base
        settings = NEW | {"attention_mask": torch.ones_like(alone)}
        told, said = (
            expected.generate(alone, **settings),
            model.generate(alone, prompt_lookup_num_tokens=3, **settings),
        )
        assert torch.equal(said[:, : told.shape[1]], told)  # transformers 4.57 may write a token more than it should


def test_rows_that_stay_plain_are_so_bit_for_bit(model, base, gate, ids):
    closed = scores_by_hooks(base, ids, gate) < gate.threshold[0]
    said = NEW | {"attention_mask": torch.ones_like(ids), "output_logits": True, "return_dict_in_generate": True}
    for ours, theirs in zip(model.generate(ids, **said).logits, base.generate(ids, **said).logits, strict=True):
        assert torch.equal(ours[closed], theirs[closed])


def test_padding_on_the_left_does_not_change_what_the_gate_reads(model, ungated, base, gate, ids):
    mask = (torch.arange(11) >= torch.tensor([0, 4, 8, 1, 3, 6])[:, None]).long()
    padded = ids * mask
    opened = (scores_by_hooks(base, padded, gate, mask) >= gate.threshold[0]).float()
    assert 0 < opened.sum() < 6
    gated = model.generate(padded, attention_mask=mask, **NEW)
    assert torch.equal(gated, ungated.generate(padded, attention_mask=mask, iti_alpha=ALPHA * opened, **NEW))


def test_embeddings_instead_of_tokens(model, ids):
    mask = torch.ones_like(ids)
    by_tokens = model.generate(ids, attention_mask=mask, **NEW)
    embedded = model.generate(inputs_embeds=model.get_input_embeddings()(ids), attention_mask=mask, **NEW)
    assert torch.equal(by_tokens[:, ids.shape[1] :], embedded)


def test_a_score_that_is_not_a_number_leaves_the_prompt_plain(gate):
    heads = {layer: torch.full((6, 96), float("nan")) for layer in (1, 3)}
    assert not gate.opens(heads).any()


def test_a_call_s_own_strengths_are_gated_too_and_the_gate_can_be_left_out(model, ungated, base, gate, ids):
    opened, mask = (scores_by_hooks(base, ids, gate) >= gate.threshold[0]).float(), torch.ones_like(ids)
    own = torch.linspace(-2, 2, 6)
    gated = model.generate(ids, attention_mask=mask, iti_alpha=own, **NEW)
    assert torch.equal(gated, ungated.generate(ids, attention_mask=mask, iti_alpha=own * opened, **NEW))
    left_out = model.generate(ids, attention_mask=mask, iti_gate=False, **NEW)
    assert torch.equal(left_out, ungated.generate(ids, attention_mask=mask, **NEW))
    plain = base.generate(ids, attention_mask=mask, **NEW)
    assert torch.equal(model.generate(ids, attention_mask=mask, iti_alpha=0, **NEW), plain)
    with model.disable_iti():
        assert torch.equal(model.generate(ids, attention_mask=mask, **NEW), plain)
        assert torch.equal(logits(model, ids), logits(base, ids))


def test_a_gate_of_one_behaviour_leaves_the_other_alone(model, ungated, base, gate, ids):
    other, mask = some_directions(base.config, 4, 9), torch.ones_like(ids)
    for each in (model, ungated):
        each.set_iti_behaviour("other", other, alpha=1.0)
    opened = (scores_by_hooks(base, ids, gate) >= gate.threshold[0]).float()
    expected = ungated.generate(ids, attention_mask=mask, iti_alpha={"default": ALPHA * opened}, **NEW)
    assert torch.equal(model.generate(ids, attention_mask=mask, **NEW), expected)


def test_two_threads_that_generate_at_once_read_their_own_prompts(model, ids):
    def told(rows):
        return model.generate(ids[rows], attention_mask=torch.ones_like(ids[rows]), **NEW)

    parts = [slice(0, 2), slice(2, 6), slice(1, 4), slice(5, 6)] * 3
    alone = [told(rows) for rows in parts]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(alone, pool.map(told, parts), strict=True):
            assert torch.equal(one, other)


def test_with_early_exit_each_row_alone(model, ungated, base, gate, ids):
    """The draft runs fewer layers than the gate reads."""
    new = NEW | {"min_new_tokens": None}  # transformers 4.57 refuses it with a draft
    for row in range(len(ids)):
        expected = model.generate(ids[row : row + 1], **new)
        assert torch.equal(model.generate(ids[row : row + 1], assistant_early_exit=2, **new), expected)
        assert model.config.num_hidden_layers == 4


@pytest.mark.parametrize("new", [1, 5])
def test_a_gate_reads_the_whole_prompt_or_nothing(model, ids, new):
    cache = logits_and_cache(model, ids[:, :-new])
    with pytest.raises(ValueError, match="the gate reads the whole prompt: pass all its tokens"):
        model.generate(ids[:, -new:], past_key_values=cache, attention_mask=torch.ones_like(ids), **NEW)


def test_where_it_cannot_be_it_is_refused(model, ungated, ids, gate):
    with pytest.raises(ValueError, match="does not know where prompts end.*: call generate, or pass iti_gate=False"):
        logits(model, ids)
    assert torch.equal(logits(model, ids, iti_gate=False), logits(ungated, ids))
    with pytest.raises(ValueError, match="the directions have a gate, but a bias acts on every prompt"):
        model.merge_and_unload()
    with pytest.raises(ValueError, match="directions of this model have no gate"):
        ungated.generate(ids, iti_gate=True, **NEW)
    model.set_iti_directions(replace(model.iti_directions, gate=None))
    assert torch.equal(logits(model, ids), logits(ungated, ids))


@pytest.mark.parametrize("given", [0, "no"])
def test_what_is_no_truth_value_is_refused(model, ids, given):
    for call in (lambda: model.generate(ids, iti_gate=given, **NEW), lambda: logits(model, ids, iti_gate=given)):
        with pytest.raises(ValueError, match=f"iti_gate is {given!r}; expected True or False"):
            call()


def test_a_generation_config_may_leave_it_out(model, ungated, ids):
    settings = {"attention_mask": torch.ones_like(ids)}
    config = GenerationConfig(iti_gate=False, **NEW)
    assert torch.equal(
        model.generate(ids, generation_config=config, **settings), ungated.generate(ids, **settings, **NEW)
    )


def test_forms_that_act_on_every_prompt_are_refused(model, tmp_path):
    with pytest.raises(ValueError, match="use scope 'all', and directions without a gate"):
        model.init_continuous_batching()
    model.save_pretrained(tmp_path)
    with pytest.raises(ExportError, match="the directions of 'default' have a gate"):
        open_source(tmp_path)


def test_a_patched_gguf_cannot_hold_it(model, tmp_path):
    pytest.importorskip("gguf", reason="the extra gguf is not installed")
    model.save_pretrained(tmp_path)
    with pytest.raises(ExportError, match="have a gate, which decides for each prompt"):
        patch_gguf(tmp_path, tmp_path / "base.gguf", tmp_path / "out.gguf")


def test_it_is_saved_and_loaded_with_the_directions(model, ids, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = ITILlamaForCausalLM.from_pretrained(tmp_path)
    assert ITIDirections.load(tmp_path / "iti_directions.safetensors").gate is not None
    mask = torch.ones_like(ids)
    assert torch.equal(
        loaded.generate(ids, attention_mask=mask, **NEW), model.generate(ids, attention_mask=mask, **NEW)
    )
