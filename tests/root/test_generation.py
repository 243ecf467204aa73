"""Generation: for both scopes the tokens of a cached reference with hooks, whatever the decoding machinery."""

import pytest
import torch
from reference import SCOPE_POSITIONS, hooks, some_directions, tiny_llama
from steered import steered_copy
from transformers import GenerationConfig, StaticCache

from iti_llama import ITILlamaForCausalLM


ALPHA = 2.5
NEW = 12

pytestmark = pytest.mark.parametrize("scope", ["all", "generated"])


@pytest.fixture(scope="module")
def models():
    base = tiny_llama(seed=4)
    return base, some_directions(base.config, k=6, seed=2)


@pytest.fixture
def pair(models, scope):
    base, directions = models
    return steered_copy(base, directions, iti_alpha=ALPHA, iti_scope=scope), base


def generate(model, ids, **kwargs):
    settings = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
    kwargs.setdefault("attention_mask", torch.ones_like(ids))
    return model.generate(ids, **(settings | kwargs))


def reference(pair, models, scope, ids, alpha=ALPHA, **kwargs):
    """Plain Llama, cached generation, hooks that shift what the scope says; and proof that the steering shows."""
    with hooks(pair[1], models[1], alpha, SCOPE_POSITIONS[scope]):
        tokens = generate(pair[1], ids, **kwargs)
    return tokens


def left_padded(ids):
    """Rows of 11, 7 and 3 tokens, padded on the left."""
    mask = (torch.arange(11) >= torch.tensor([0, 4, 8])[:, None]).long()
    return ids * mask, mask


def test_greedy(pair, models, scope, ids):
    tokens = generate(pair[0], ids)
    assert torch.equal(tokens, reference(pair, models, scope, ids))
    assert not torch.equal(tokens, generate(pair[1], ids))
    with pair[0].disable_iti():
        assert torch.equal(generate(pair[0], ids), generate(pair[1], ids))


def test_left_padding_and_a_row_alone_or_in_a_batch(pair, models, scope, ids):
    padded, mask = left_padded(ids)
    batch = generate(pair[0], padded, attention_mask=mask)
    assert torch.equal(batch, reference(pair, models, scope, padded, attention_mask=mask))
    for row, length in enumerate((11, 7, 3)):
        alone = ids[row : row + 1, -length:]
        tokens = generate(pair[0], alone)
        assert torch.equal(tokens, reference(pair, models, scope, alone))
        assert torch.equal(tokens[0, length:], batch[row, 11:])


def test_a_mask_that_is_left_out_is_guessed_as_generate_guesses_it(pair, models, scope, ids):
    padded, mask = left_padded(ids)
    tokens = pair[0].generate(padded, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)
    assert torch.equal(tokens, generate(pair[0], padded, attention_mask=mask))


@pytest.mark.parametrize("machinery", ["no cache", "static cache", "chunked prefill", "prompt lookup", "short prompt"])
def test_the_machinery_of_decoding_changes_nothing(pair, models, scope, ids, machinery):
    padded, mask = left_padded(ids)
    if machinery == "no cache":
        tokens = generate(pair[0], padded, attention_mask=mask, use_cache=False)
    elif machinery == "static cache":
        tokens = generate(pair[0], padded, attention_mask=mask, cache_implementation="static", disable_compile=True)
    elif machinery == "short prompt":
        padded, mask = ids[:, :1], torch.ones(3, 1, dtype=torch.long)
        tokens = generate(pair[0], padded)
    else:
        # Plain Llama of transformers 4.57 fails at padding with the one and at batches with the other: rows alone.
        kwargs = {"prefill_chunk_size": 4} if machinery == "chunked prefill" else {"prompt_lookup_num_tokens": 3}
        rows = [ids[row : row + 1, -length:] for row, length in enumerate((11, 7, 3))]
        tokens = [generate(pair[0], row, **kwargs)[0] for row in rows]
        expected = [reference(pair, models, scope, row)[0] for row in rows]
        assert all(torch.equal(a, b) for a, b in zip(tokens, expected, strict=True))
        return
    assert torch.equal(tokens, reference(pair, models, scope, padded, attention_mask=mask))


@pytest.mark.parametrize("assistant", ["plain", "steered"])
def test_assisted_decoding_gives_the_same_tokens(pair, models, scope, ids, assistant):
    helper = tiny_llama(seed=4) if assistant == "plain" else steered_copy(pair[1], models[1], iti_scope=scope)
    row, free = ids[:1], {"min_new_tokens": None}  # assisted decoding of transformers 4.57 knows no minimum
    tokens = generate(pair[0], row, assistant_model=helper, **free)
    assert torch.equal(tokens, reference(pair, models, scope, row, **free))


def test_beams_and_several_returns(pair, models, scope, ids):
    padded, mask = left_padded(ids)
    beams = {"num_beams": 3, "num_return_sequences": 2, "attention_mask": mask, "length_penalty": 0.0}
    tokens = generate(pair[0], padded, **beams)
    assert torch.equal(tokens, reference(pair, models, scope, padded, **beams))
    torch.manual_seed(0)
    samples = generate(pair[0], padded, do_sample=True, num_return_sequences=3, attention_mask=mask)
    torch.manual_seed(0)
    expected = reference(pair, models, scope, padded, do_sample=True, num_return_sequences=3, attention_mask=mask)
    assert torch.equal(samples, expected)


def test_each_row_has_its_own_alpha_also_with_beams(pair, models, scope, ids):
    padded, mask = left_padded(ids)
    alphas = torch.tensor([0.0, ALPHA, -ALPHA])
    tokens = generate(pair[0], padded, attention_mask=mask, iti_alpha=alphas)
    assert torch.equal(tokens, reference(pair, models, scope, padded, alpha=alphas, attention_mask=mask))
    assert torch.equal(tokens[0], generate(pair[1], padded, attention_mask=mask)[0])
    beams = {"num_beams": 2, "attention_mask": mask}
    expanded = alphas.repeat_interleave(2)
    assert torch.equal(
        generate(pair[0], padded, iti_alpha=alphas, **beams),
        reference(pair, models, scope, padded, alpha=expanded, **beams),
    )
    assert torch.equal(
        generate(pair[0], padded, attention_mask=mask, iti_alpha=-1.0),
        reference(pair, models, scope, padded, alpha=-1.0, attention_mask=mask),
    )


def test_a_chat_goes_on_over_a_kept_cache(pair, models, scope, ids):
    def two_turns(model):
        first = generate(model, ids, return_dict_in_generate=True)
        prompt = torch.cat([first.sequences, ids[:, :5]], dim=1)
        return generate(model, prompt, past_key_values=first.past_key_values)

    if scope == "generated":  # one call on the whole text shifts none of the first turn
        with pytest.raises(ValueError, match="the cache was shifted where another prompt ended"):
            two_turns(pair[0])
        return
    with hooks(pair[1], models[1], ALPHA, SCOPE_POSITIONS[scope]):
        expected = two_turns(pair[1])
    assert torch.equal(two_turns(pair[0]), expected)


def test_a_prefix_is_reused_where_that_gives_the_tokens_of_one_call(pair, models, scope, ids):
    expected = generate(pair[0], ids)
    with torch.no_grad():
        shifted = pair[0](ids[:, :6], use_cache=True).past_key_values
        plain = pair[0](ids[:, :6], use_cache=True, iti_alpha=0.0).past_key_values
    if scope == "all":
        assert torch.equal(generate(pair[0], ids, past_key_values=shifted), expected)
    else:
        assert torch.equal(generate(pair[0], ids, past_key_values=plain), expected)
        with pytest.raises(ValueError, match="the cache was shifted where another prompt ended"):
            generate(pair[0], ids, past_key_values=shifted)


def test_prompts_given_as_embeddings(pair, models, scope, ids):
    embeddings = pair[1].get_input_embeddings()(ids).detach()
    kwargs = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
    mask = torch.ones_like(ids)
    tokens = pair[0].generate(inputs_embeds=embeddings, attention_mask=mask, **kwargs)
    assert torch.equal(tokens, reference(pair, models, scope, ids)[:, 11:])


def test_steps_by_hand_over_a_cache_are_those_of_generate(pair, models, scope, ids):
    cache, fed, tokens = None, ids, []
    with torch.no_grad():
        for _ in range(NEW):
            output = pair[0](fed, past_key_values=cache, use_cache=True)
            cache, fed = output.past_key_values, output.logits[:, -1:].argmax(-1)
            tokens.append(fed)
    assert torch.equal(torch.cat(tokens, 1), reference(pair, models, scope, ids, eos_token_id=None)[:, 11:])


def test_a_static_cache_preallocated_by_the_caller(pair, models, scope, ids):
    cache = StaticCache(config=pair[0].config, max_cache_len=40)
    tokens = generate(pair[0], ids, past_key_values=cache, disable_compile=True)
    assert torch.equal(tokens, reference(pair, models, scope, ids))


def test_a_failed_call_leaves_no_trace(pair, models, scope, ids):
    for wrong in (torch.ones(2), float("nan"), torch.tensor([1.0, float("inf"), 1.0])):
        with pytest.raises(ValueError, match="iti_alpha is"):
            generate(pair[0], ids, iti_alpha=wrong)
    with pytest.raises(ValueError):
        generate(pair[0], ids, iti_alpha=0.0, num_beams=1, num_return_sequences=2)
    assert torch.equal(generate(pair[0], ids), reference(pair, models, scope, ids))


def test_a_request_s_generation_config_may_say_the_strength_and_the_model_s_own_may_not(
    pair, models, scope, ids, tmp_path
):
    """A model's strength has one home, config.json: what merges, exports and cards say is what `generate` does."""
    model = pair[0]
    want = {alpha: reference(pair, models, scope, ids, alpha) for alpha in (ALPHA, -ALPHA)}
    request = GenerationConfig(iti_alpha=-ALPHA, bos_token_id=1, eos_token_id=2)
    assert torch.equal(generate(model, ids, generation_config=request), want[-ALPHA])
    assert torch.equal(generate(model, ids, generation_config=request, iti_alpha=ALPHA), want[ALPHA])
    assert request.iti_alpha == -ALPHA and torch.equal(generate(model, ids), want[ALPHA])
    with pytest.raises(ValueError, match="iti_alpha is 'much'"):
        generate(model, ids, generation_config=GenerationConfig(iti_alpha="much", eos_token_id=2))
    model.save_pretrained(tmp_path)
    request.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"generation_config.json: iti_alpha is -2.5; expected no such field"):
        ITILlamaForCausalLM.from_pretrained(tmp_path)
    model.generation_config = request
    with pytest.raises(ValueError, match=r"model.generation_config: iti_alpha is -2.5; .*config.json, here 2.5"):
        generate(model, ids)
