"""Capture, against plain forward passes one text at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from reference import tiny_llama, tiny_tokenizer

from iti_llama.toolkit import capture as module
from iti_llama.toolkit.capture import Policy, capture, tokenize
from iti_llama.toolkit.examples import Example, read_examples, write_examples


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def examples():
    lines = ["a = 1\n", "for b in c:\n    d += b\n", "return e\n", "f(g)\n", "h\n"]
    return [
        Example("def f" * (1 + i % 4) + ":\n", "".join(lines[: 1 + i % 5]), i % 2, f"g{i // 2}") for i in range(14)
    ]


def one_by_one(model, rows):
    """Input of every o_proj and output of every layer, mean over each row's span, from batches of one without padding."""
    heads, residual = [], []
    for row in rows:
        seen = {}
        handles = [
            layer.self_attn.o_proj.register_forward_pre_hook(lambda m, a, i=i, seen=seen: seen.__setitem__(i, a[0][0]))
            for i, layer in enumerate(model.model.layers)
        ]
        with torch.no_grad():
            states = model.model(torch.tensor([row.ids]), output_hidden_states=True).hidden_states
        for handle in handles:
            handle.remove()
        heads.append(torch.stack([seen[i][row.first :].mean(0) for i in sorted(seen)]))
        residual.append(torch.stack([s[0, row.first :].mean(0) for s in states[1:-1]]))
    return torch.stack(heads), torch.stack(residual)


@pytest.mark.parametrize("policy", ["last", "completion-mean", "fraction 0", "fraction 0.5", "fraction 1"])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_any_batch_size_gives_the_activations_of_single_rows(model, tokenizer, examples, policy, batch_size):
    policy = Policy.parse(policy)
    found = capture(model, tokenizer, examples, policy, batch_size)
    heads, residual = one_by_one(model, [tokenize(e, policy, tokenizer) for e in examples])
    layers, width = model.config.num_hidden_layers, model.config.num_attention_heads
    assert found.heads.shape[:3] == (14, layers, width)
    torch.testing.assert_close(found.heads.flatten(2), heads, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.residual[:, :-1], residual, atol=1e-5, rtol=1e-5)


def test_policies_keep_the_positions_they_name(tokenizer):
    example = Example("def f():\n", "x = 1\ny = 2\nreturn x\n", 1, "g")
    whole = tokenize(example, Policy("last"), tokenizer)
    prompt = tokenizer(example.prompt)["input_ids"]
    assert whole.first == len(whole.ids) - 1
    assert tokenize(example, Policy("completion-mean"), tokenizer).first == len(prompt)
    assert tokenize(example, Policy("fraction", 0.0), tokenizer).ids == prompt
    half = tokenize(example, Policy("fraction", 0.6), tokenizer)
    assert tokenizer.decode(half.ids).endswith("y = 2\n")
    assert tokenize(example, Policy("fraction", 1.0), tokenizer) == whole


@pytest.mark.parametrize("text", ["first", "fraction", "fraction 2", "fraction -1", "fraction 1.2.3", "fraction ."])
def test_an_unknown_policy_is_refused(text):
    with pytest.raises(ValueError, match="policy is"):
        Policy.parse(text)


def test_long_texts_are_counted_and_never_cut(model, tokenizer, examples):
    long = Example("x " * 600, "y\n", 0, "g")
    with pytest.raises(ValueError, match=r"2 of 16 texts are longer than the model's \d+ tokens, the first is row 15"):
        capture(model, tokenizer, [*examples, long, long], Policy("last"))


def test_a_killed_capture_goes_on_where_it_stopped(model, tokenizer, examples, tmp_path, monkeypatch):
    expected = capture(model, tokenizer, examples, Policy("last"), 4)
    forward, done = module._forward, []

    def killed(*args):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return forward(*args)

    monkeypatch.setattr(module, "_forward", killed)
    with pytest.raises(KeyboardInterrupt):
        capture(model, tokenizer, examples, Policy("last"), 4, cache=tmp_path)
    rest = []
    monkeypatch.setattr(module, "_forward", lambda *args: rest.append(1) or forward(*args))
    found = capture(model, tokenizer, examples, Policy("last"), 4, cache=tmp_path)
    assert len(rest) == 2  # four batches, two were there
    torch.testing.assert_close(found.heads, expected.heads, atol=0, rtol=0)
    again = capture(model, tokenizer, examples, Policy("last"), 4, cache=tmp_path)
    assert len(rest) == 2 and torch.equal(again.residual, expected.residual)


def test_the_cache_is_not_read_for_another_model_policy_or_data(model, tokenizer, examples, tmp_path):
    capture(model, tokenizer, examples, Policy("last"), cache=tmp_path)
    other = tiny_llama(seed=5)
    for args in ((other, examples, "last"), (model, examples, "completion-mean"), (model, examples[:-1], "last")):
        found = capture(args[0], tokenizer, args[1], Policy(args[2]), cache=tmp_path)
        fresh = capture(args[0], tokenizer, args[1], Policy(args[2]))
        assert torch.equal(found.heads, fresh.heads)
    assert len(list(tmp_path.glob("*.safetensors"))) == 4


def test_a_cut_off_cache_file_is_made_anew(model, tokenizer, examples, tmp_path):
    expected = capture(model, tokenizer, examples, Policy("last"), cache=tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    found = capture(model, tokenizer, examples, Policy("last"), cache=tmp_path)
    assert torch.equal(found.heads, expected.heads)


def test_two_processes_share_the_work_and_agree_with_one(model, tokenizer, examples, tmp_path):
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    data = write_examples(examples, tmp_path / "data.jsonl")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, torch\n"
        "from iti_llama.toolkit.build import load_base\n"
        "from iti_llama.toolkit.capture import Policy, capture, processes\n"
        "from iti_llama.toolkit.examples import read_examples\n"
        "folder = sys.argv[1]\n"
        "model, tokenizer = load_base(folder + '/model')\n"
        "found = capture(model, tokenizer, read_examples(folder + '/data.jsonl'), Policy('last'), 4, folder + '/cache')\n"
        "torch.save(found.heads, f'{folder}/{processes().process_index}.pt')\n"
        "assert processes().num_processes == 2\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(script), str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert run.returncode == 0, run.stderr[-4000:]
    expected = capture(model, tokenizer, read_examples(data), Policy("last"), 4)
    for process in (0, 1):
        found = torch.load(tmp_path / f"{process}.pt")
        torch.testing.assert_close(found, expected.heads, atol=1e-6, rtol=1e-6)
    assert not [path for path in Path(tmp_path, "cache").iterdir() if path.is_dir()]


def test_a_model_that_is_spread_over_devices_gives_the_same(model, tokenizer, examples, tmp_path):
    from transformers import LlamaForCausalLM

    model.save_pretrained(tmp_path / "model")
    layers = {f"model.layers.{i}": "disk" if i % 2 else "cpu" for i in range(model.config.num_hidden_layers)}
    device_map = {
        "model.embed_tokens": "cpu",
        "model.rotary_emb": "cpu",
        "model.norm": "cpu",
        "lm_head": "cpu",
    } | layers
    spread = LlamaForCausalLM.from_pretrained(
        tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "off"
    )
    found = capture(spread, tokenizer, examples, Policy("last"))
    expected = capture(model, tokenizer, examples, Policy("last"))
    torch.testing.assert_close(found.heads, expected.heads, atol=1e-6, rtol=1e-6)
