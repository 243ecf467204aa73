"""Fitting: planted heads are found, the published algorithm is reproduced, chance is called chance."""

import json
import shutil

import pytest
import torch
from reference import tiny_llama, tiny_tokenizer
from taught import TEMPLATE

from iti_llama import ITIDirections, ITILlamaForCausalLM
from iti_llama.toolkit.data.labelled_set import Example, read_examples
from iti_llama.toolkit.fit.settings import FitSettings
from iti_llama.toolkit.repo.fit_repo import fit_repo, read_for
from iti_llama.toolkit.repo.settings import RepoSettings


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    tiny_llama().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def labelled():
    """Label 1 texts end in one way, label 0 texts in another: any model tells them apart."""
    return [
        Example(f"def f{i}(x):\n", "return x\n" if label else "y = 1\n", label, f"g{i}")
        for i in range(30)
        for label in (0, 1)
    ]


def made_of(base, **kwargs) -> RepoSettings:
    return RepoSettings(base, fitting=FitSettings(top_k=5, permutations=20), **kwargs)


def test_fit_writes_a_repo_that_loads_and_steers(base_folder, labelled, tmp_path):
    out = tmp_path / "repo"
    found = fit_repo(made_of(base_folder, alpha=2.0), labelled, out, dataset="d.jsonl")
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    code = {"configuration_iti_llama.py", "modeling_iti_llama.py", "iti_directions.py"}
    assert (
        code | {"config.json", "iti_directions.safetensors", "iti_report.json", "README.md", "tokenizer.json"} <= names
    )
    assert {f"figures/{name}.png" for name in ("head_auc", "null", "projections", "layers")} <= names
    assert not any(name.endswith(("model.safetensors", ".bin", ".pkl", ".pt")) for name in names)
    assert sum(path.stat().st_size for path in out.iterdir() if path.is_file()) < 200_000

    model = ITILlamaForCausalLM.from_pretrained(out)
    assert (model.iti_alpha, len(model.iti_directions)) == (2.0, 5)
    ids = torch.tensor([[1, 5, 9, 7]])
    steered = model(ids).logits
    with model.disable_iti():
        assert not torch.allclose(model(ids).logits, steered)

    report = json.loads((out / "iti_report.json").read_text())
    assert report == json.loads(json.dumps(found))
    assert report["heads"][0]["auc"] == pytest.approx(float(model.iti_directions.scores[0]), abs=1e-6)
    card = (out / "README.md").read_text()
    assert report["verdict"] in card and "trust_remote_code=True" in card


def test_the_same_inputs_give_the_same_bytes(base_folder, labelled, tmp_path):
    written = []
    for name, cache in (("a", None), ("b", tmp_path / "cache"), ("c", tmp_path / "cache")):
        fit_repo(made_of(base_folder, cache=cache), labelled, tmp_path / name)
        written.append(
            [(tmp_path / name / file).read_bytes() for file in ("iti_directions.safetensors", "figures/null.png")]
        )
    assert written[0] == written[1] == written[2]


def test_self_contained_repos_hold_the_weights(base_folder, labelled, tmp_path):
    fit_repo(made_of(base_folder, self_contained=True), labelled, tmp_path / "a")
    assert (tmp_path / "a" / "model.safetensors").exists()
    # and are a base themselves, of the same directions
    fit_repo(made_of(tmp_path / "a", self_contained=True), labelled, tmp_path / "b")
    first, second = (ITIDirections.load(tmp_path / name / "iti_directions.safetensors") for name in "ab")
    assert torch.equal(first.directions, second.directions) and torch.equal(first.sigma, second.sigma)
    with pytest.raises(ValueError, match="--self-contained"):
        fit_repo(made_of(tmp_path / "a"), labelled, tmp_path / "c")


def test_nothing_is_left_of_a_fit_that_fails(base_folder, labelled, tmp_path, monkeypatch):
    from iti_llama.toolkit.repo import fit_repo as build

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build, "write_report", full)
    with pytest.raises(OSError, match="No space left"):
        fit_repo(made_of(base_folder), labelled, tmp_path / "repo")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_not_overwritten_unasked(base_folder, labelled, tmp_path):
    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty"):
        fit_repo(made_of(base_folder), labelled, tmp_path)
    assert (tmp_path / "keep.txt").read_text() == "mine"


def test_only_a_steered_repo_is_ever_overwritten(base_folder, labelled, tmp_path, monkeypatch):
    from iti_llama.toolkit.repo import fit_repo as build

    fit_repo(made_of(base_folder, alpha=1.0), labelled, tmp_path / "repo")
    fit_repo(made_of(base_folder, alpha=2.0), labelled, tmp_path / "repo", overwrite=True)
    assert ITILlamaForCausalLM.from_pretrained(tmp_path / "repo").iti_alpha == 2.0

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build, "write_report", full)
    with pytest.raises(OSError, match="No space left"):
        fit_repo(made_of(base_folder), labelled, tmp_path / "repo", overwrite=True)
    assert ITILlamaForCausalLM.from_pretrained(tmp_path / "repo").iti_alpha == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["repo"]

    monkeypatch.setattr(build, "capture", None)  # refused before any work
    (tmp_path / "repo" / ".git").mkdir()
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.txt").write_text("mine")
    for name in ("repo", "papers"):
        with pytest.raises(FileExistsError, match="is not overwritten"):
            fit_repo(made_of(base_folder), labelled, tmp_path / name, overwrite=True)
    assert (tmp_path / "papers" / "thesis.txt").read_text() == "mine"


def test_a_base_that_is_no_llama_is_refused(labelled, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="model_type 'gpt2'; expected 'llama'"):
        fit_repo(made_of(tmp_path), labelled, tmp_path / "out")


def test_messages_are_fitted_on_as_the_bases_template_writes_them(base_folder, tmp_path):
    chatty = shutil.copytree(base_folder, tmp_path / "chatty")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(chatty)
    rows = [
        {"messages": [{"role": "user", "content": f"f{i}"}], "completion": text, "label": label, "group": f"g{i}"}
        for i in range(20)
        for label, text in enumerate(("y = 1", "return x"))
    ]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    examples = read_for(chatty, tmp_path / "d.jsonl")
    assert examples[0].prompt == "<bos>[user]f0\n[assistant]"
    assert examples[0].meta == {"shown": "f0", "shown_at": 11, "messages": rows[0]["messages"]}
    fit_repo(made_of(chatty), examples, tmp_path / "repo")
    card = (tmp_path / "repo" / "README.md").read_text()
    assert "tokenizer.apply_chat_template(messages" in card and "[user]" not in card
    assert "[0, inputs[" in card  # the answer alone
    assert ITILlamaForCausalLM.from_pretrained(tmp_path / "repo").generation_config.max_new_tokens == 512
    kept = read_examples(tmp_path / "repo" / "labelled_set.jsonl")
    assert [(e.prompt, e.completion, e.label, e.group) for e in kept] == [
        (e.prompt, e.completion, e.label, e.group) for e in examples
    ]
    with pytest.raises(ValueError, match="line 1: messages, but the base's tokenizer has no chat template"):
        read_for(base_folder, tmp_path / "d.jsonl")


def test_a_base_or_data_that_is_not_there_is_said(base_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="none.jsonl: no such file; expected a labelled set"):
        read_for(base_folder, tmp_path / "none.jsonl")
    (tmp_path / "d.jsonl").write_text("{}\n")
    for base in ("/nowhere", "./nowhere", "~/nowhere", "no/where/at/all"):
        with pytest.raises(FileNotFoundError, match=f"base {base}: no such folder, and no name of a Hub repo"):
            read_for(base, tmp_path / "d.jsonl")
