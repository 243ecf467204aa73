"""Loading and saving, both storage forms, with and without the package; and every way in which loading must fail."""

import json
import pickle
import shutil
import sys
import textwrap

import pytest
import torch
from apart import run_apart, run_in_two
from conftest import ROOT
from reference import assert_close, hooks, some_directions, tiny_config, tiny_llama
from steered import logits
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, GenerationConfig, GPT2Config, LlamaForCausalLM

from iti_llama import ITIDirections, ITIDirectionsError, ITILlamaConfig, ITILlamaForCausalLM, ITILlamaModel
from iti_llama.toolkit.repo.folder import CODE


ADAPTER_FILES = set(CODE) | {"config.json", "generation_config.json", "iti_directions.safetensors"}


@pytest.fixture
def expected(base, directions, ids):
    """The logits of hooks on plain Llama, for a given alpha."""

    def at(alpha, chosen=directions):
        with hooks(base, chosen, alpha):
            return logits(base, ids)

    return at


@pytest.fixture
def self_contained_dir(steered, tmp_path):
    steered.config.base_model_name_or_path = None
    steered.save_pretrained(tmp_path / "self-contained")
    return tmp_path / "self-contained"


def edit_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_adapter_form_holds_no_weights_and_loads(adapter_dir, ids, expected):
    assert {path.name for path in adapter_dir.iterdir()} == ADAPTER_FILES
    assert sum(path.stat().st_size for path in adapter_dir.iterdir()) < 100_000
    model = AutoModelForCausalLM.from_pretrained(adapter_dir)
    assert type(model) is ITILlamaForCausalLM
    assert_close(logits(model, ids), expected(1.5))
    assert model.name_or_path == str(adapter_dir)


@pytest.mark.parametrize("written_by", [4, 5])
def test_a_base_is_read_whichever_version_of_transformers_wrote_it(
    base_dir, directions, ids, expected, tmp_path, written_by
):
    """Version 5 keeps the rotary embedding in one field, version 4 in two."""
    shutil.copytree(base_dir, tmp_path / "base")
    path = tmp_path / "base" / "config.json"
    fields = json.loads(path.read_text())
    rope = fields.pop("rope_parameters", None) or fields.pop("rope_scaling") | {"rope_theta": fields.pop("rope_theta")}
    assert rope["rope_type"] == "llama3" and rope["rope_theta"] == 5e5
    theta = rope.pop("rope_theta")
    old, new = {"rope_theta": theta, "rope_scaling": rope}, {"rope_parameters": rope | {"rope_theta": theta}}
    path.write_text(json.dumps(fields | (old if written_by == 4 else new)))
    model = ITILlamaForCausalLM.from_base(tmp_path / "base", directions, alpha=1.5)
    assert_close(logits(model, ids), expected(1.5))
    model.save_pretrained(tmp_path / "adapter")
    assert_close(logits(ITILlamaForCausalLM.from_pretrained(tmp_path / "adapter"), ids), expected(1.5))


def test_self_contained_form_loads_without_its_base(self_contained_dir, ids, expected):
    assert {path.name for path in self_contained_dir.iterdir()} == ADAPTER_FILES | {"model.safetensors"}
    assert json.loads((self_contained_dir / "config.json").read_text())["base_model_name_or_path"] is None
    model = AutoModelForCausalLM.from_pretrained(self_contained_dir)
    assert_close(logits(model, ids), expected(1.5))
    headless, info = AutoModel.from_pretrained(self_contained_dir, output_loading_info=True)
    assert type(headless) is ITILlamaModel
    assert not info["missing_keys"]
    with torch.no_grad():
        states = headless(ids).last_hidden_state
    assert_close(model.lm_head(states), expected(1.5))


def test_a_model_survives_pickle(adapter_dir, ids):
    model = AutoModelForCausalLM.from_pretrained(adapter_dir)
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(logits(again, ids), logits(model, ids))
    again.iti_alpha = 0.0
    assert model.iti_alpha == 1.5 and not torch.equal(logits(again, ids), logits(model, ids))


def test_fields_are_overridden_while_loading(adapter_dir, directions, ids, expected):
    for cls in (AutoModelForCausalLM, ITILlamaForCausalLM):
        model = cls.from_pretrained(adapter_dir, iti_alpha=0.5, iti_top_k=2, iti_scope="generated", dtype="bfloat16")
        assert (model.iti_alpha, model.iti_top_k, model.iti_scope) == (0.5, 2, "generated")
        assert model.dtype == torch.bfloat16
        assert_close(logits(model, ids, iti_start=0), expected(0.5, directions.top(2)), relative=0.05)
    config = AutoConfig.from_pretrained(adapter_dir, iti_alpha=-1.0)
    assert_close(logits(AutoModelForCausalLM.from_pretrained(adapter_dir, config=config), ids), expected(-1.0))
    model = ITILlamaForCausalLM.from_pretrained(adapter_dir, dtype="auto")
    assert model.dtype == torch.float32


def test_the_live_state_is_what_is_saved(adapter_dir, tmp_path, directions):
    model = AutoModelForCausalLM.from_pretrained(adapter_dir)
    model.iti_alpha, model.iti_top_k, model.iti_scope = -0.25, 3, "generated"
    other = some_directions(tiny_config(), seed=9)
    model.set_iti_directions(other)
    model.save_pretrained(tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    assert (again.iti_alpha, again.iti_top_k, again.iti_scope) == (-0.25, 3, "generated")
    assert torch.equal(again.iti_directions.directions, other.directions)


def test_a_model_that_is_disabled_while_saved_keeps_its_alpha(steered, tmp_path):
    with steered.disable_iti():
        steered.save_pretrained(tmp_path)
    assert ITILlamaForCausalLM.from_pretrained(tmp_path).iti_alpha == 1.5


def test_directions_are_loaded_from_a_file_or_another_repo(steered, adapter_dir, directions, ids, expected, tmp_path):
    other = some_directions(tiny_config(), seed=9)
    other.save(tmp_path / "other.safetensors")
    steered.set_iti_directions(ITIDirections.load(tmp_path / "other.safetensors"))
    assert_close(logits(steered, ids), expected(1.5, other))
    steered.set_iti_directions(ITIDirections.from_pretrained(adapter_dir))
    assert_close(logits(steered, ids), expected(1.5))
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors"):
        ITIDirections.from_pretrained(adapter_dir, "nothing.safetensors")


def test_an_un_steered_model_says_so_in_its_config_and_loads(base, directions, tmp_path, ids):
    kept = {k: v for k, v in base.config.to_dict().items() if k not in ("model_type", "architectures")}
    model = ITILlamaForCausalLM(ITILlamaConfig(**kept))
    model.load_state_dict(base.state_dict())
    model.set_iti_directions(directions)
    model.set_iti_directions(None)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["iti_directions_file"] is None
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path), ids), logits(base, ids))


def test_a_directions_file_that_was_swapped_is_refused_unless_it_is_accepted(adapter_dir, ids, expected):
    other = some_directions(tiny_config(), seed=9)
    other.save(adapter_dir / "iti_directions.safetensors")
    with pytest.raises(ITIDirectionsError, match="SHA-256 is .*; expected .*set iti_directions_sha256 to null"):
        AutoModelForCausalLM.from_pretrained(adapter_dir)
    for load in (AutoModelForCausalLM.from_pretrained, ITILlamaForCausalLM.from_pretrained):
        assert_close(logits(load(adapter_dir, iti_directions_sha256=None), ids), expected(1.5, other))
    other.save(adapter_dir / "more.safetensors")  # the digest is that of another file
    model = ITILlamaForCausalLM.from_pretrained(adapter_dir, iti_directions_file="more.safetensors")
    assert_close(logits(model, ids), expected(1.5, other))
    edit_config(adapter_dir, iti_directions_sha256=None)
    assert_close(logits(AutoModelForCausalLM.from_pretrained(adapter_dir), ids), expected(1.5, other))


def test_tied_and_sharded_checkpoints(tmp_path, ids, directions):
    base = tiny_llama(tie_word_embeddings=True)
    base.save_pretrained(tmp_path / "base", max_shard_size="60KB")
    assert (tmp_path / "base" / "model.safetensors.index.json").exists()
    model = ITILlamaForCausalLM.from_base(tmp_path / "base", directions, alpha=1.5)
    with hooks(base, directions, 1.5):
        reference = logits(base, ids)
    assert_close(logits(model, ids), reference)
    model.config.base_model_name_or_path = None
    model.save_pretrained(tmp_path / "full", max_shard_size="60KB")
    assert (tmp_path / "full" / "model.safetensors.index.json").exists()
    again, info = ITILlamaForCausalLM.from_pretrained(tmp_path / "full", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert_close(logits(again, ids), reference)


def test_a_base_in_a_subfolder_of_nothing_of_ours(adapter_dir, tmp_path, ids, expected):
    """`subfolder` belongs to the steered repo, not to its base."""
    shutil.copytree(adapter_dir, tmp_path / "outer" / "inner")
    model = ITILlamaForCausalLM.from_pretrained(tmp_path / "outer", subfolder="inner")
    assert_close(logits(model, ids), expected(1.5))


def test_generation_config_of_the_steered_repo_wins(steered, tmp_path):
    steered.generation_config.max_new_tokens = 77
    steered.save_pretrained(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).generation_config.max_new_tokens == 77


@pytest.mark.parametrize("form", ["adapter", "self-contained"])
@pytest.mark.parametrize("placement", ["auto", "cpu offload", "disk offload", "disk offload with buffers"])
def test_device_maps_and_offload(form, placement, steered, base_dir, tmp_path, ids, expected):
    if form == "self-contained":
        steered.config.base_model_name_or_path = None
    steered.save_pretrained(tmp_path / "model")
    kwargs = {"device_map": "auto"}
    if placement != "auto":
        where = "cpu" if placement == "cpu offload" else "disk"
        kwargs["device_map"] = {
            "model.embed_tokens": "cpu",
            "model.rotary_emb": "cpu",
            "model.norm": "cpu",
            "lm_head": "cpu",
            **{f"model.layers.{i}": where for i in range(4)},
        }
        kwargs |= {"offload_folder": tmp_path / "offload", "offload_buffers": "buffers" in placement}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", **kwargs)
    if placement.startswith("disk"):
        assert any(parameter.is_meta for parameter in model.parameters())
    assert_close(logits(model, ids), expected(1.5))
    model.iti_alpha = 0.4
    assert_close(logits(model, ids), expected(0.4))
    tokens = model.generate(ids, max_new_tokens=4, do_sample=False, iti_alpha=torch.tensor([0.0, 0.5, 1.0]))
    assert tokens.shape == (3, 15)


def test_a_generation_config_that_is_passed_takes_the_place_of_the_repos(adapter_dir):
    assert (adapter_dir / "generation_config.json").is_file()
    given = GenerationConfig(max_new_tokens=7, eos_token_id=2)
    model = ITILlamaForCausalLM.from_pretrained(adapter_dir, generation_config=given)
    assert model.generation_config.max_new_tokens == 7
    with pytest.raises(ValueError, match="iti_alpha is 0.5; expected no such field"):
        ITILlamaForCausalLM.from_pretrained(adapter_dir, generation_config=GenerationConfig(iti_alpha=0.5))


@pytest.mark.parametrize("bits", [4, 8])
def test_bitsandbytes(bits, ids, tmp_path):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (extra: quantization)")
    from transformers import BitsAndBytesConfig

    plain_llama = tiny_llama(head_dim=32, intermediate_size=128)  # its kernels want multiples of 64
    plain_llama.save_pretrained(tmp_path / "base")
    directions = some_directions(plain_llama.config)
    ITILlamaForCausalLM.from_base(tmp_path / "base", directions, alpha=1.5).save_pretrained(tmp_path / "adapter")
    quantization = BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter", quantization_config=quantization)
    base = LlamaForCausalLM.from_pretrained(tmp_path / "base", quantization_config=quantization)
    plain = logits(base, ids)
    with hooks(base, directions, 1.5):
        reference = logits(base, ids)
    effect = (reference - plain).abs().mean()
    assert (logits(model, ids) - reference).abs().mean() < 0.1 * effect
    with model.disable_iti():
        assert torch.equal(logits(model, ids), plain)
    model.save_pretrained(tmp_path / "again")
    assert "quantization_config" not in json.loads((tmp_path / "again" / "config.json").read_text())
    with pytest.raises(ValueError, match="quantised: load the model in full precision"):
        model.merge_and_unload()


def test_torchao(ids, tmp_path):
    """Weights of eight bits; the shift goes through the module, so it is that of the quantised projection."""
    quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    from transformers import TorchAoConfig

    plain_llama = tiny_llama()
    plain_llama.save_pretrained(tmp_path / "base")
    directions = some_directions(plain_llama.config)
    ITILlamaForCausalLM.from_base(tmp_path / "base", directions, alpha=1.5).save_pretrained(tmp_path / "adapter")
    config = TorchAoConfig(quantization.Int8WeightOnlyConfig())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter", quantization_config=config)
    base = LlamaForCausalLM.from_pretrained(tmp_path / "base", quantization_config=config)
    assert type(base.model.layers[0].self_attn.o_proj.weight.data) is not torch.Tensor
    plain = logits(base, ids)
    with hooks(base, directions, 1.5):
        reference = logits(base, ids)
    assert (reference - plain).abs().max() > 0.1
    assert_close(logits(model, ids), reference)
    with model.disable_iti():
        assert torch.equal(logits(model, ids), plain)
    model.save_pretrained(tmp_path / "again")
    with pytest.raises(ValueError, match="quantised: load the model in full precision"):
        model.merge_and_unload()


def test_tensor_parallel_processes_compute_the_same_shift(base_dir, base, directions, adapter_dir, ids, tmp_path):
    script = """
        import sys, torch
        from iti_llama import ITILlamaForCausalLM
        model = ITILlamaForCausalLM.from_pretrained(sys.argv[1], tp_plan="auto")
        assert hasattr(model.model.layers[0].self_attn.o_proj.weight, "full_tensor")
        logits = model(torch.load(sys.argv[2] + "/ids.pt")).logits.detach()
        logits = logits.full_tensor() if hasattr(logits, "full_tensor") else logits
        torch.save(logits, f"{sys.argv[2]}/{torch.distributed.get_rank()}.pt")
    """
    torch.save(ids, tmp_path / "ids.pt")
    run_in_two(script, adapter_dir, tmp_path)
    with hooks(base, directions, 1.5):
        reference = logits(base, ids)
    for rank in (0, 1):
        assert_close(torch.load(tmp_path / f"{rank}.pt"), reference)


def test_weights_that_reach_a_rank_after_its_directions_are_steered(adapter_dir, base, directions, ids, tmp_path):
    """As FSDP sends them where rank 0 alone has loaded them: none of the steering is made of weights."""
    script = """
        import sys, torch
        from iti_llama import ITILlamaForCausalLM
        torch.distributed.init_process_group("gloo")
        rank = torch.distributed.get_rank()
        model = ITILlamaForCausalLM.from_pretrained(sys.argv[1]).eval()
        if rank == 1:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.fill_(1e8)
        for tensor in (*model.parameters(), *model.buffers()):
            torch.distributed.broadcast(tensor.detach(), 0)
        with torch.no_grad():
            torch.save(model(torch.load(sys.argv[2] + "/ids.pt")).logits, f"{sys.argv[2]}/{rank}.pt")
        torch.distributed.barrier()
    """
    torch.save(ids, tmp_path / "ids.pt")
    run_in_two(script, adapter_dir, tmp_path)
    with hooks(base, directions, 1.5):
        reference = logits(base, ids)
    for rank in (0, 1):
        assert_close(torch.load(tmp_path / f"{rank}.pt"), reference)


# Without the package -------------------------------------------------------------------------------------------------


def run_without_the_package(script: str, *arguments) -> None:
    """A script in a process of its own, where `iti_llama` cannot be imported, and where a warning is an error."""
    guard = "import sys, warnings\nsys.modules['iti_llama'] = None\nwarnings.simplefilter('error', UserWarning)\n"
    result = run_apart(guard + textwrap.dedent(script), *arguments)
    assert result.returncode == 0, result.stderr


REMOTE = """
    import pickle, sys, torch
    from transformers import AutoModel, AutoModelForCausalLM
    folder, out = sys.argv[1:]
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, device_map="auto")
    ids = torch.randint(3, 97, (3, 11), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.save(model(ids).logits, out)
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    model.save_pretrained(out + ".saved")
    again = AutoModelForCausalLM.from_pretrained(out + ".saved", trust_remote_code=True)
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model(ids).logits)
    headless = AutoModel.from_pretrained(out + ".saved", trust_remote_code=True)
    assert headless.iti_alpha == 1.5 and len(headless.iti_directions) == 4
    with torch.no_grad():
        assert torch.equal(pickle.loads(pickle.dumps(model))(ids).logits, model(ids).logits)
"""


@pytest.mark.parametrize("form", ["adapter", "self-contained"])
def test_saved_folders_load_with_remote_code_and_nothing_installed(form, steered, tmp_path, ids, expected):
    if form == "self-contained":
        steered.config.base_model_name_or_path = None
    steered.save_pretrained(tmp_path / "model")
    run_without_the_package(REMOTE, tmp_path / "model", tmp_path / "logits.pt")
    assert_close(torch.load(tmp_path / "logits.pt"), expected(1.5))
    saved = {path.name for path in (tmp_path / "logits.pt.saved").iterdir()}
    assert saved == {path.name for path in (tmp_path / "model").iterdir()}


def test_no_code_of_the_base_repo_is_run(base_dir, directions, tmp_path):
    """`trust_remote_code` for the steered repo is not trust in its base."""
    poisoned = tmp_path / "base"
    shutil.copytree(base_dir, poisoned)
    for name in ("modeling_evil.py", "custom_generate/generate.py", "configuration_evil.py"):
        (poisoned / name).parent.mkdir(exist_ok=True)
        (poisoned / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit(3)\n")
    auto_map = {"AutoConfig": "configuration_evil.Evil", "AutoModelForCausalLM": "modeling_evil.Evil"}
    edit_config(poisoned, auto_map=auto_map)
    ITILlamaForCausalLM.from_base(poisoned, directions).save_pretrained(tmp_path / "model")
    script = """
        import sys
        from transformers import AutoModelForCausalLM
        AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
    """
    run_without_the_package(script, tmp_path / "model")
    assert not (tmp_path / "ran").exists()


def test_a_base_without_directions_is_plain_and_says_so_until_it_gets_some(base_dir, base, directions, ids, tmp_path):
    model = ITILlamaForCausalLM.from_base(base_dir, None)
    assert torch.equal(logits(model, ids), logits(base, ids))
    model.save_pretrained(tmp_path / "plain")
    assert json.loads((tmp_path / "plain" / "config.json").read_text())["iti_directions_file"] is None
    model.set_iti_directions(directions)
    model.save_pretrained(tmp_path / "steered")
    again = ITILlamaForCausalLM.from_pretrained(tmp_path / "steered")
    assert torch.equal(logits(again, ids), logits(model, ids)) and not torch.equal(
        logits(model, ids), logits(base, ids)
    )


# What must fail ------------------------------------------------------------------------------------------------------


def test_directions_that_are_missing_or_broken_stop_the_load(adapter_dir):
    file = adapter_dir / "iti_directions.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-8])
    with pytest.raises(ITIDirectionsError, match="truncated"):
        AutoModelForCausalLM.from_pretrained(adapter_dir)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"iti_directions\.safetensors.*never loaded"):
        AutoModelForCausalLM.from_pretrained(adapter_dir)


def test_directions_of_another_geometry_stop_the_load(adapter_dir):
    some_directions(tiny_config(num_attention_heads=8)).save(adapter_dir / "iti_directions.safetensors")
    with pytest.raises(ITIDirectionsError, match="num_attention_heads=8.*this model has num_attention_heads=4"):
        AutoModelForCausalLM.from_pretrained(adapter_dir)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"iti_directions_file": "../secret.safetensors"}, "iti_directions_file is '../secret.safetensors'"),
        ({"iti_directions_file": "/etc/passwd"}, "plain file name"),
        ({"iti_directions_file": "a\\b"}, "plain file name"),
        ({"iti_directions_file": ".."}, "plain file name"),
        ({"iti_directions_file": ""}, "plain file name"),
        ({"iti_alpha": "strong"}, "iti_alpha is 'strong'; expected a finite number"),
        ({"iti_alpha": float("nan")}, "iti_alpha is nan"),
        ({"iti_alpha": float("inf")}, "iti_alpha is inf"),
        ({"iti_alpha": None}, "iti_alpha is None"),
        ({"iti_scope": "prompt"}, "iti_scope is 'prompt'; expected one of 'all', 'generated'"),
        ({"iti_top_k": 0}, "iti_top_k is 0; expected null or an integer of at least 1"),
        ({"iti_top_k": 5}, "iti_top_k is 5, but the directions hold 4 heads"),
        ({"iti_alfa": 3}, r"iti_alfa is not a field that this version knows; did you mean iti_alpha\?"),
        ({"iti_behavior": {}}, r"did you mean iti_behaviours\?"),
        ({"base_model_name_or_path": ""}, "base_model_name_or_path is ''"),
        ({"hidden_size": 32}, "has hidden_size=64, but config.json says 32"),
        ({"num_key_value_heads": 4}, "has num_key_value_heads=2, but config.json says 4"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quant_method=None.*config.json says 'gptq'"),
    ],
)
def test_wrong_fields_stop_the_load(adapter_dir, fields, says):
    edit_config(adapter_dir, **fields)
    with pytest.raises(ValueError, match=says):
        AutoModelForCausalLM.from_pretrained(adapter_dir)


@pytest.mark.parametrize("field", ["iti_alpha", "iti_scope", "iti_top_k", "iti_directions_file"])
def test_wrong_overrides_stop_the_load(adapter_dir, field):
    with pytest.raises(ValueError, match=field):
        ITILlamaForCausalLM.from_pretrained(adapter_dir, **{field: "a/b"})


@pytest.mark.parametrize("loader", [ITILlamaForCausalLM, AutoModelForCausalLM, ITILlamaConfig, AutoConfig])
def test_a_misspelt_override_stops_the_load(adapter_dir, loader):
    with pytest.raises(ValueError, match=r"iti_topk is not a field that this version knows; did you mean iti_top_k\?"):
        loader.from_pretrained(adapter_dir, iti_topk=3)
    with pytest.raises(ValueError, match="did you mean iti_scope"):
        ITILlamaConfig(iti_scop="generated")


def test_a_base_that_differs_stops_the_load(adapter_dir, tmp_path):
    tiny_llama(num_hidden_layers=3).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="num_hidden_layers=3, but config.json says 4"):
        ITILlamaForCausalLM.from_pretrained(adapter_dir, base_model_name_or_path=str(tmp_path / "other"))
    quantized = tiny_llama()
    quantized.save_pretrained(tmp_path / "quantized")
    edit_config(tmp_path / "quantized", quantization_config={"quant_method": "awq", "bits": 4})
    with pytest.raises(ValueError, match="quantisation quant_method='awq'"):
        ITILlamaForCausalLM.from_pretrained(adapter_dir, base_model_name_or_path=str(tmp_path / "quantized"))


def test_a_base_that_is_no_llama_or_not_there(directions, adapter_dir, tmp_path):
    GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="model_type 'gpt2'; expected 'llama'"):
        ITILlamaForCausalLM.from_base(tmp_path, directions)
    with pytest.raises(ValueError, match="model_type 'iti_llama'; expected 'llama'"):
        ITILlamaForCausalLM.from_base(adapter_dir, directions)
    with pytest.raises(OSError, match=r"(?s)base model .*nowhere.*gated, accept its licence"):
        ITILlamaForCausalLM.from_base(tmp_path / "nowhere", directions)


def test_a_plain_llama_is_not_taken_for_a_steered_one(base_dir):
    with pytest.raises(ValueError, match=r"model_type 'llama'; expected 'iti_llama'.*from_base"):
        ITILlamaForCausalLM.from_pretrained(base_dir)


def test_a_base_on_this_machine_cannot_be_pushed(steered):
    with pytest.raises(ValueError, match="nobody else can load"):
        steered.push_to_hub("me/steered")


def test_nothing_is_read_while_a_model_is_constructed(adapter_dir, tmp_path, monkeypatch):
    config = ITILlamaConfig.from_pretrained(adapter_dir)
    monkeypatch.setattr("builtins.open", lambda *_, **__: pytest.fail("a file was opened"))
    ITILlamaForCausalLM(config)


def test_the_root_modules_import_nothing_but_what_the_hub_user_has():
    import ast

    allowed = {"torch", "transformers", "safetensors", "huggingface_hub"} | set(sys.stdlib_module_names)
    for name in CODE:
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                assert node.module.split(".")[0] in allowed
            elif isinstance(node, ast.ImportFrom):
                assert f"{node.module}.py" in CODE
