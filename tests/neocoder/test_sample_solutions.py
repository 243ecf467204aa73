"""NeoCoder: reading its files, running its solutions, labelling them."""

from dataclasses import replace

import pytest
import torch
from reference import tiny_llama, tiny_tokenizer

from iti_llama.toolkit.foundation.files import read_rows
from iti_llama.toolkit.neocoder.sample_solutions import draw, prompt_for


def test_sampling_goes_on_where_it_stopped_and_gives_the_same(problems, tmp_path):
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    short = [replace(problem, statements=(f"double {i}",)) for i, problem in enumerate(problems)]
    kwargs = {"n": 5, "max_new_tokens": 8, "batch_size": 2}
    draw(model, tokenizer, short, tmp_path / "whole.jsonl", **kwargs)
    whole = read_rows(tmp_path / "whole.jsonl")
    assert [row["problem_id"] for row in whole] == ["1A"] * 5 + ["2B"] * 5
    assert len({row["completion"] for row in whole}) > 5
    lines = (tmp_path / "whole.jsonl").read_bytes()
    (tmp_path / "killed.jsonl").write_bytes(lines[: len(lines) // 2])  # in the middle of a row
    torch.manual_seed(99)
    draw(model, tokenizer, short, tmp_path / "killed.jsonl", **kwargs)
    assert read_rows(tmp_path / "killed.jsonl") == whole
    for other, changed in ((tiny_llama(seed=1), {}), (model, {"temperature": 0.5})):
        with pytest.raises(ValueError, match="holds samples drawn with"):
            draw(other, tokenizer, short, tmp_path / "whole.jsonl", **(kwargs | changed))
    assert (tmp_path / "whole.jsonl").read_bytes() == lines


def test_prompts_go_through_the_chat_template_where_there_is_one():
    tokenizer = tiny_tokenizer()
    assert prompt_for("Add.", tokenizer) == '"""Add.\n"""\n'
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %} [assistant]"
    )
    text = prompt_for("Add.", tokenizer)
    assert text.startswith("<bos>[user] Solve") and text.endswith("Add. [assistant]")
