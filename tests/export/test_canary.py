"""The canary tells steered from plain, in every form and over HTTP; and says so when nothing could."""

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch
from reference import tiny_llama, tiny_tokenizer
from transformers import AutoTokenizer, GenerationConfig
from typer.testing import CliRunner

from iti_llama import ITILlamaConfig, ITILlamaForCausalLM
from iti_llama.toolkit.cli.app import app
from iti_llama.toolkit.export.canary import FILE, PROMPTS, as_text, ask_server, make_canary, read_canary
from iti_llama.toolkit.export.export import export
from iti_llama.toolkit.export.forms import InTransformers, load_form
from iti_llama.toolkit.export.select_behaviours import ExportError
from iti_llama.toolkit.foundation.package import ROOT


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The bundled model in every form, steered, and its plain base."""
    folder = tmp_path_factory.mktemp("exported")
    forms = ["llama", "peft", "vllm"] + (["gguf"] if _importable("gguf") else [])
    for form in forms:
        export(ROOT, form, folder / form)
        if form != "vllm":
            export(ROOT, form, folder / f"plain {form}", alpha=0.0)
    return folder


def _importable(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        return False
    return True


def test_it_holds_both_answers_and_where_they_part(exported):
    canary = read_canary(exported / "llama" / FILE)
    model, tokenizer = ITILlamaForCausalLM.from_pretrained(ROOT).eval(), AutoTokenizer.from_pretrained(ROOT)
    inputs = tokenizer(canary.prompt, return_tensors="pt")
    assert inputs["input_ids"][0].tolist() == canary.prompt_ids
    for way, alpha in ((canary.steered, model.iti_alpha), (canary.plain, 0.0)):
        out = model.generate(**inputs, iti_alpha=alpha, do_sample=False, max_new_tokens=48)
        assert out[0, len(canary.prompt_ids) :].tolist() == way.ids
    at = canary.position
    assert canary.plain.ids[:at] == canary.steered.ids[:at] and canary.plain.ids[at] != canary.steered.ids[at]
    assert canary.steered.logprobs["steered"] > canary.steered.logprobs["plain"]
    assert canary.plain.logprobs["plain"] > canary.plain.logprobs["steered"]


def test_of_all_prompts_it_is_the_one_without_a_near_tie():
    """Each prompt answered alone, and the least lead of the likeliest token over the next at any step."""
    model, tokenizer = ITILlamaForCausalLM.from_pretrained(ROOT).eval(), AutoTokenizer.from_pretrained(ROOT)
    leads = {}
    for prompt in PROMPTS:
        inputs, leads_of, ids_of = tokenizer(prompt, return_tensors="pt"), [], []
        for alpha in (0.0, model.iti_alpha):
            out = model.generate(
                **inputs, iti_alpha=alpha, do_sample=False, max_new_tokens=48, output_logits=True,
                return_dict_in_generate=True,
            )  # fmt: skip
            ids_of.append(out.sequences[0, inputs["input_ids"].shape[1] :].tolist())
            top = torch.stack(out.logits)[:, 0].log_softmax(-1).topk(2).values
            leads_of.append(top[:, 0] - top[:, 1])
        at = next((i for i, (a, b) in enumerate(zip(*ids_of, strict=False)) if a != b), None)
        if at is not None:
            leads[prompt] = min(float(lead[: at + 1].min()) for lead in leads_of)
    assert len(leads) > 1 and make_canary(model, tokenizer).prompt == max(leads, key=leads.get)


def test_a_chat_model_is_asked_through_its_template():
    model, tokenizer = ITILlamaForCausalLM.from_pretrained(ROOT).eval(), AutoTokenizer.from_pretrained(ROOT)
    tokenizer.chat_template = "{% for m in messages %}# {{ m['content'] }}{% endfor %}"
    canary = make_canary(model, tokenizer, ["def count_up(numbers):\n"])
    messages = [{"role": "user", "content": canary.prompt.removeprefix("# ")}]
    assert canary.prompt.startswith("# ")
    assert canary.prompt_ids == tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]


@pytest.mark.parametrize("form", ["llama", "peft", "gguf"])
def test_each_form_is_found_steered_and_without_the_steering_plain(form, exported):
    if form == "gguf":
        pytest.importorskip("xllamacpp")
    if form == "peft":
        pytest.importorskip("peft")
    canary = read_canary(exported / form / FILE)
    for folder, verdict in ((form, "steered"), (f"plain {form}", "plain")):
        place = next((exported / folder).glob(f"*-{verdict}-f32.gguf")) if form == "gguf" else exported / folder
        found = load_form(place, str(exported / "plain llama"))
        assert canary.verdict(found.continues(canary.prompt_ids, 48)) == verdict


def test_the_command_says_what_it_found_by_its_exit_code(exported, tmp_path):
    tiny_llama(vocab_size=ITILlamaConfig.from_pretrained(ROOT).vocab_size).save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(ROOT).save_pretrained(tmp_path / "other")
    folders = {"steered": exported / "llama", "plain": exported / "plain llama", "neither": tmp_path / "other"}
    for (verdict, folder), code in zip(folders.items(), (0, 3, 4), strict=True):
        found = CliRunner().invoke(app, ["canary", str(folder), "--canary", str(exported / "llama" / FILE)])
        assert (found.exit_code, found.output.split()[0]) == (code, verdict), found.output


def test_verdicts_of_answers(exported):
    canary = read_canary(exported / "llama" / FILE)
    for answer, verdict in {
        canary.steered.text: "steered",
        canary.plain.text + " and more": "plain",
        " " + canary.steered.text.lstrip(): "steered",  # some engines begin with the space of the first word
        "": "neither",
        "something else": "neither",
    }.items():
        assert canary.verdict(answer) == verdict
    ways = canary.plain.text, canary.steered.text
    both = next(at for at, (a, b) in enumerate(zip(*ways, strict=False)) if a != b)
    for text in ways:  # one letter in common is chance
        assert canary.verdict(text[: both + 1] + "@" + "z" * 40) == "neither"
    longer = replace(canary.steered, text=canary.plain.text + "x")  # one is the beginning of the other
    assert replace(canary, steered=longer).verdict(canary.plain.text) == "neither"


def test_beams_and_penalties_of_the_repo_are_not_asked_of_an_engine():
    model, tokenizer = ITILlamaForCausalLM.from_pretrained(ROOT).eval(), AutoTokenizer.from_pretrained(ROOT)
    canary, own = make_canary(model, tokenizer), model.generation_config
    model.generation_config = GenerationConfig(**own.to_diff_dict() | {"num_beams": 4, "repetition_penalty": 1.8})
    assert make_canary(model, tokenizer) == canary
    assert InTransformers(model, tokenizer).continues(canary.prompt_ids, 48) == canary.steered.text
    assert model.generation_config.num_beams == 4


def test_a_text_is_kept_that_a_server_reads_as_the_same_tokens():
    tokenizer = tiny_tokenizer()
    bos, ids = tokenizer.bos_token, tokenizer("return x")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id  # the tokenizer adds it, and a template that writes it would double it
    assert as_text(tokenizer, f"{bos}return x", ids) == "return x"
    assert as_text(tokenizer, "return x", ids) == "return x"


@pytest.mark.parametrize("takes_ids", [True, False])
def test_a_server_is_asked_by_ids_or_by_text(takes_ids, exported):
    canary, asked = read_canary(exported / "llama" / FILE), []

    class Server(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def _reply(self, body: dict, status: int = 200):
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            self._reply({"data": [{"id": "first"}]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body)
            if isinstance(body["prompt"], list) and not takes_ids:
                return self._reply({"error": "a text, please"}, 422)
            return self._reply({"choices": [{"text": canary.plain.text}]})

    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    answer = ask_server(f"http://127.0.0.1:{server.server_port}", None)(canary)
    server.shutdown()
    server.server_close()
    assert canary.verdict(answer) == "plain"
    assert asked[-1]["prompt"] == (canary.prompt_ids if takes_ids else canary.prompt)
    assert (asked[-1]["model"], asked[-1]["temperature"]) == ("first", 0)


@pytest.mark.parametrize("strength", ["0", "-0.0", "{alpha}", "{alpha}00"])
def test_a_strength_that_the_canary_holds_is_asked_for(strength, exported):
    canary = read_canary(exported / "llama" / FILE)
    with pytest.raises(ConnectionError):  # it is asked, and nobody is there
        ask_server("http://127.0.0.1:9", f"steered@{strength.format(alpha=canary.alpha)}")(canary)


@pytest.mark.parametrize("model", ["steered@0.123", "steered@1e9", "steered@0.5+typed@0.5"])
def test_a_strength_that_the_canary_does_not_hold_is_refused(model, exported):
    canary = read_canary(exported / "llama" / FILE)
    with pytest.raises(ValueError) as error:
        ask_server("http://127.0.0.1:9", model)(canary)
    assert all(value in str(error.value) for value in ("--model", repr(model), f"{canary.alpha:g}"))


def test_a_server_that_is_not_there_is_an_error(exported):
    with pytest.raises(ConnectionError, match="no list of models"):
        ask_server("http://127.0.0.1:9", None)(read_canary(exported / "llama" / FILE))


def test_a_steering_that_changes_no_answer_has_no_canary():
    model = ITILlamaForCausalLM.from_pretrained(ROOT, iti_alpha=1e-6).eval()
    with pytest.raises(ExportError, match="changes no greedy answer"):
        make_canary(model, AutoTokenizer.from_pretrained(ROOT))


def test_a_file_that_is_no_canary_is_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=FILE):
        read_canary(tmp_path / FILE)
    (tmp_path / FILE).write_text('{"format": "iti_canary 1", "prompt": 3}')
    with pytest.raises(ValueError, match=f"{FILE}: is not a canary"):
        read_canary(tmp_path / FILE)
