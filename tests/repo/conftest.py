"""Push, pull and verify, of both forms, against the server on loopback."""

import json

import pytest
from reference import tiny_tokenizer

from iti_llama import ITILlamaForCausalLM


@pytest.fixture(params=["adapter", "self-contained"])
def folder(request, base_dir, directions, tmp_path):
    """A steered repo on disk, with what a user's folder also holds."""
    model = ITILlamaForCausalLM.from_base(base_dir, directions, alpha=1.5)
    model.config.base_model_name_or_path = "meta/base" if request.param == "adapter" else None
    path = tmp_path / "repo"
    model.save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    (path / "README.md").write_text(
        '---\nlicense: llama3.1\n---\n\n# x\n\n```python\nrepo = "REPO"\nload(repo)\n```\n'
    )
    (path / "figures").mkdir()
    (path / "figures" / "null.png").write_bytes(b"png")
    for name in (
        "tests/test_x.py",
        ".env",
        "secrets.json",
        "__pycache__/x.pyc",
        "optimizer.pt",
        "notes.txt",
        ".git/config",
    ):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("hf_secret")
    return path


@pytest.fixture
def form(folder):
    return (
        json.loads((folder / "config.json").read_text())["base_model_name_or_path"] and "adapter"
    ) or "self-contained"
