"""Capture, against plain forward passes one text at a time."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from apart import run_in_two
from reference import tiny_llama
from steered import steered_copy

from iti_llama.toolkit.data.labelled_set import read_examples, write_examples
from iti_llama.toolkit.fit.positions import Policy
from iti_llama.toolkit.fit.record_activations import capture


def test_a_killed_capture_goes_on_where_it_stopped(model, tokenizer, examples, tmp_path):
    expected = capture(model, tokenizer, examples, Policy("last"), 4)
    passes = []

    def count(module, arguments):
        passes.append(1)
        if len(passes) == 3:
            raise KeyboardInterrupt

    handle = model.model.embed_tokens.register_forward_pre_hook(count)
    try:
        with pytest.raises(KeyboardInterrupt):
            capture(model, tokenizer, examples, Policy("last"), 4, cache=tmp_path)
        found = capture(model, tokenizer, examples, Policy("last"), 4, cache=tmp_path)
        assert len(passes) == 3 + 2  # four batches, two were there
        torch.testing.assert_close(found.heads, expected.heads, atol=0, rtol=0)
        again = capture(model, tokenizer, examples, Policy("last"), 4, cache=tmp_path)
        assert len(passes) == 5 and torch.equal(again.residual, expected.residual)
    finally:
        handle.remove()


def test_the_cache_is_not_read_for_another_model_policy_or_data(model, tokenizer, examples, tmp_path):
    capture(model, tokenizer, examples, Policy("last"), cache=tmp_path)
    other = steered_copy(tiny_llama(seed=5), None)
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
    script = """
        import sys, torch
        from iti_llama.toolkit.repo.fit_repo import load_base
        from iti_llama.toolkit.fit.activation_cache import processes
        from iti_llama.toolkit.fit.positions import Policy
        from iti_llama.toolkit.fit.record_activations import capture
        from iti_llama.toolkit.data.labelled_set import read_examples
        folder = sys.argv[1]
        model, tokenizer = load_base(folder + "/model")
        rows = read_examples(folder + "/data.jsonl")
        found = capture(model, tokenizer, rows, Policy("last"), 4, folder + "/cache")
        torch.save(found.heads, f"{folder}/{processes().process_index}.pt")
        assert processes().num_processes == 2
    """
    run_in_two(script, tmp_path)
    expected = capture(model, tokenizer, read_examples(data), Policy("last"), 4)
    for process in (0, 1):
        found = torch.load(tmp_path / f"{process}.pt")
        torch.testing.assert_close(found, expected.heads, atol=1e-6, rtol=1e-6)
    assert not [path for path in Path(tmp_path, "cache").iterdir() if path.is_dir()]


def test_a_capture_goes_on_after_midnight_though_the_template_prints_the_date(model, tokenizer, examples, tmp_path):
    def on(day: str):
        return [
            replace(row, prompt=f"{day} {row.prompt}", meta={"shown": row.prompt, "shown_at": 3}) for row in examples
        ]

    passes = []
    handle = model.model.embed_tokens.register_forward_pre_hook(lambda *_: passes.append(1))
    try:
        capture(model, tokenizer, on("29"), Policy("last"), 4, cache=tmp_path)
        before = len(passes)
        capture(model, tokenizer, on("30"), Policy("last"), 4, cache=tmp_path)
        assert before and len(passes) == before
        capture(model, tokenizer, examples, Policy("last"), 4, cache=tmp_path)  # without the template
        assert len(passes) == 2 * before
    finally:
        handle.remove()
