"""A steering as a LoRA for PEFT on the plain base, with a scale."""

import json

import pytest
import torch
from huggingface_hub import ModelCard
from reference import assert_close, hooks
from transformers import AutoModelForCausalLM

from iti_llama import ITIDirections
from iti_llama.toolkit.export.adapters import export_peft
from iti_llama.toolkit.export.export import export
from iti_llama.toolkit.export.forms import load_form
from iti_llama.toolkit.export.source import open_source


def test_peft_adds_what_hooks_add_at_any_scale(repo, ids, tmp_path):
    peft = pytest.importorskip("peft")
    if json.loads((tmp_path / "base" / "config.json").read_text())["attention_bias"]:
        pytest.skip("the reference below has no bias of its own")
    export_peft(open_source(repo), tmp_path / "peft")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    directions = ITIDirections.load(repo / "iti_directions.safetensors")
    want = {}
    for scale in (1, -1, 0.5):
        with torch.no_grad(), hooks(base, directions, 1.5 * scale):
            want[scale] = base(ids).logits
    model = peft.PeftModel.from_pretrained(base, tmp_path / "peft").eval()
    for scale, logits in want.items():
        for module in model.modules():
            if hasattr(module, "set_scale"):
                module.set_scale("default", scale)
        with torch.no_grad():
            assert_close(model(ids).logits, logits)
    assert (tmp_path / "peft" / "adapter_model.safetensors").stat().st_size < 10_000


WAYS = ["AutoModelForCausalLM", "AutoPeftModelForCausalLM", "PeftModel", "load_adapter"]


@pytest.fixture
def exported(one_repo, tmp_path):
    """A PEFT export that names its base, a folder here."""
    pytest.importorskip("peft")
    export_peft(open_source(one_repo), tmp_path / "peft")
    path = tmp_path / "peft" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(tmp_path / "base")}))
    return tmp_path / "peft"


def load_export(way: str, folder):
    import peft

    if way == "AutoModelForCausalLM":
        return AutoModelForCausalLM.from_pretrained(folder).eval()
    if way == "AutoPeftModelForCausalLM":
        return peft.AutoPeftModelForCausalLM.from_pretrained(folder).eval()
    base = AutoModelForCausalLM.from_pretrained(folder.parent / "base")
    if way == "PeftModel":
        return peft.PeftModel.from_pretrained(base, folder).eval()
    base.load_adapter(str(folder))
    return base.eval()


@pytest.mark.parametrize("way", WAYS)
def test_whichever_way_an_export_is_loaded_it_is_steered_and_can_be_switched(way, exported, one_repo, ids):
    """By PEFT's own switch, and by transformers' methods where they take the PEFT that is installed: transformers 5.24
    wants one that is not out, and says so, and the model is as it was."""
    base = AutoModelForCausalLM.from_pretrained(exported.parent / "base").eval()
    with torch.no_grad():
        plain = base(ids).logits
    with torch.no_grad(), hooks(base, ITIDirections.load(one_repo / "iti_directions.safetensors"), 1.5):
        steered = base(ids).logits
    model = load_export(way, exported)

    def logits() -> torch.Tensor:
        with torch.no_grad():
            return model(ids).logits

    assert_close(logits(), steered)
    if hasattr(model, "disable_adapter"):  # PEFT's
        with model.disable_adapter():
            assert torch.equal(logits(), plain)
    else:
        try:
            model.disable_adapters()
        except ValueError as error:
            assert "PEFT" in str(error) and "version >=" in str(error)
        else:
            assert torch.equal(logits(), plain)
            model.enable_adapters()
    assert_close(logits(), steered)


@pytest.mark.parametrize("to", ["peft", "vllm"])
def test_a_base_that_was_a_folder_is_named_only_where_its_name_on_the_hub_is_given(one_repo, tmp_path, to):
    _, notes = export(one_repo, to, tmp_path / "unnamed", with_canary=False)
    _, silent = export(one_repo, to, tmp_path / "named", with_canary=False, base_name="meta/base")
    assert any("--base-name" in note for note in notes) and not any("--base-name" in note for note in silent)
    for name, base in (("unnamed", None), ("named", "meta/base")):
        if to == "peft":
            config = json.loads((tmp_path / name / "adapter_config.json").read_text())
            assert config["base_model_name_or_path"] == base
        assert ModelCard.load(tmp_path / name / "README.md").data.base_model == base


def test_an_adapter_that_names_no_base_is_loaded_onto_the_one_that_is_given(one_repo, tmp_path):
    pytest.importorskip("peft")
    export(one_repo, "peft", tmp_path / "peft", with_canary=False)
    with pytest.raises(ValueError, match="names no base; pass --base"):
        load_form(tmp_path / "peft")
    assert load_form(tmp_path / "peft", str(tmp_path / "base"))
