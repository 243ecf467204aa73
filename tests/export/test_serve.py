"""transformers' own server over HTTP, with the openai client: plain and steered by turns, by the request. Each answer
says what steered it. A strength that cannot be had is refused, there and in `generate_batch`."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import torch
from hub import Repo
from reference import some_directions, tiny_tokenizer
from steered import steered_repo
from taught import TEMPLATE
from transformers import AutoTokenizer, GenerationConfig

from iti_llama import ITILlamaForCausalLM
from iti_llama.iti_directions import ITIGate
from iti_llama.toolkit.export.canary import ask_server, make_canary
from iti_llama.toolkit.export.export import export
from iti_llama.toolkit.export.serve import ANSWER, checked
from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.repo.steered_repo import change_fields


PROMPT = 'def is_prime(n):\n    """Check if a number is prime."""\n'


@contextmanager
def serving(log, *options, **environment):
    """The address of `iti-llama serve` with these options. It leaves nothing in the temporary folder."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    pytest.importorskip("transformers.cli.serving", reason="transformers before 5.5 has another server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "iti_llama.toolkit.cli", "serve", *map(str, options)]
    command += ["--port", str(port), "--device", "cpu"]
    temporary = log.with_suffix(".tmp")
    temporary.mkdir()
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TMPDIR": str(temporary)} | environment
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        for _ in range(240):
            try:
                with urlopen(f"http://localhost:{port}/health", timeout=5):
                    break
            except OSError:
                assert server.poll() is None, log.read_text()
                time.sleep(0.5)
        else:
            pytest.fail(log.read_text())
        yield f"http://localhost:{port}"
    finally:
        server.terminate()
        server.wait(30)
    assert list(temporary.iterdir()) == []


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("serve") / "log", ROOT) as address:
        yield address


@pytest.fixture(scope="module")
def batching(tmp_path_factory):
    """A server that batches continuously."""
    options = ("--continuous-batching", "--cb-num-blocks", "16", "--cb-max-batch-tokens", "64")
    with serving(tmp_path_factory.mktemp("batching") / "log", ROOT, *options) as address:
        yield address


@pytest.fixture(scope="module")
def canary():
    return make_canary(ITILlamaForCausalLM.from_pretrained(ROOT).eval(), AutoTokenizer.from_pretrained(ROOT))


def status_of(address: str, path: str, **body) -> tuple[int, str]:
    """Status and text of the answer to a request."""
    body = {"model": str(ROOT), "temperature": 0, "max_tokens": 8} | body
    asked = Request(f"{address}/v1/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urlopen(asked, timeout=120) as reply:
            return reply.status, reply.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def test_a_request_says_its_strength(address):
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", timeout=120)

    def answer(alpha: float | None) -> str:
        asked = {"iti_alpha": alpha, "max_new_tokens": 40, "eos_token_id": 1, "pad_token_id": 2}
        extra = {} if alpha is None else {"extra_body": {"generation_config": json.dumps(asked)}}
        reply = client.completions.create(model=str(ROOT), prompt=PROMPT, max_tokens=40, temperature=0, **extra)
        return reply.choices[0].text

    steered, plain = "    return n > 1 and all(", "    if n < 2:"
    for alpha, start in ((None, steered), (0.0, plain), (0.4, steered), (-0.5, plain), (None, steered)):
        assert answer(alpha).startswith(start), alpha


def test_the_canary_finds_it_steered(address, canary):
    assert canary.verdict(ask_server(address, str(ROOT))(canary)) == "steered"


DIGEST = {"iti_directions.safetensors": sha256((ROOT / "iti_directions.safetensors").read_bytes()).hexdigest()}

ORIGIN = {"repo": ROOT.name, "commit": None, "directions_sha256": DIGEST, "scope": "all", "gate": None}


def first_event(text: str) -> dict:
    return json.loads(text.split("data: ", 2)[1])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "given,strength",
    [(None, 0.5), ({"iti_alpha": 0.25}, 0.25), ('{"iti_alpha": 2.5e-1}', 0.25), ('{"iti_alpha": 0}', 0.0),
     ({"iti_alpha": -0.0}, 0.0), ({"iti_alpha": {"default": 0.250}}, 0.25), ({"iti_alpha": None}, 0.5), ("{}", 0.5)],
)  # fmt: skip
def test_each_answer_says_what_steered_it(given, strength, stream, address):
    """However a strength is spelled. Nothing of the answer's own fields is lost."""
    status, text = status_of(address, "completions", prompt=PROMPT, stream=stream, generation_config=given)
    answer = first_event(text) if stream else json.loads(text)
    assert (status, json.dumps(answer["iti"])) == (200, json.dumps({"default": {"strength": strength} | ORIGIN}))
    assert answer["object"] == "text_completion" and "text" in answer["choices"][0]
    assert text.count('"iti"') == 1


def test_the_openai_client_reads_it(address):
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", timeout=120)
    asked = {"model": str(ROOT), "prompt": PROMPT, "max_tokens": 3, "temperature": 0}
    assert client.completions.create(**asked).model_extra["iti"]["default"]["strength"] == 0.5
    first, *others = client.completions.create(**asked, stream=True)
    assert first.model_extra["iti"]["default"] == {"strength": 0.5} | ORIGIN
    assert others and not any("iti" in (event.model_extra or {}) for event in others)


def test_what_is_no_answer_of_a_model_says_nothing(address):
    with urlopen(f"{address}/v1/models", timeout=30) as reply:
        assert "iti" not in json.load(reply)
    status, text = status_of(address, "completions", prompt=PROMPT, model="another")
    assert status == 400 and '"iti"' not in text


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    """A server of two behaviours, whose base has a chat template: the gate of the first opens for no prompt, that of
    the second for every one. No sweep measured them. And the model."""
    folder = tmp_path_factory.mktemp("gated")
    repo = steered_repo(folder, scope="generated")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(repo)
    model = ITILlamaForCausalLM.from_pretrained(repo).eval()

    def gate(bias: float) -> ITIGate:
        weights = torch.zeros(1, model.config.head_dim)
        return ITIGate(torch.tensor([[0, 0]]), weights, torch.tensor([bias]), torch.zeros(2))

    other = some_directions(model.config, seed=1, layers=range(4))
    model.set_iti_directions(replace(model.iti_directions, gate=gate(-1.0)))
    model.set_iti_behaviour("other", replace(other, gate=gate(1.0)), alpha=2.0)
    model.save_pretrained(repo)
    first = {"first": {"file": "iti_directions.safetensors"}}
    change_fields(repo, iti_behaviours=first | json.loads((repo / "config.json").read_text())["iti_behaviours"])
    model = ITILlamaForCausalLM.from_pretrained(repo).eval()
    with serving(folder / "log", repo) as address:
        yield address, repo, model, tokenizer


def text_of(path: str, answer: str, stream: bool) -> str:
    """The words of an answer."""
    events = [json.loads(event) for event in answer.split("data: ")[1:]] if stream else [json.loads(answer)]
    choices = [event["choices"][0] for event in events]
    if path == "completions":
        return "".join(choice["text"] or "" for choice in choices)
    return "".join(choice["delta" if stream else "message"].get("content") or "" for choice in choices)


def test_a_repo_on_the_hub_is_named_with_its_commit(hub, tmp_path):
    files = {path.name: path.read_bytes() for path in steered_repo(tmp_path).iterdir()}
    hub.repos["me/steered"] = Repo()
    commit = hub.repos["me/steered"].commit(files)
    digest = sha256(files["iti_directions.safetensors"]).hexdigest()
    online = hub.environment(tmp_path / "home") | {"HF_HUB_OFFLINE": "0"}
    with serving(tmp_path / "log", "me/steered", **online) as address:
        hub.repos["me/steered"].commit(files | {"iti_directions.safetensors": b"another"})
        status, text = status_of(address, "completions", model="me/steered", prompt="f1?")
    origin = {"repo": "me/steered", "commit": commit, "directions_sha256": {"iti_directions.safetensors": digest}}
    assert status == 200 and json.loads(text)["iti"] == {"default": {"strength": 1.5} | ORIGIN | origin}


READ, LEFT_OUT = {"first": "closed", "other": "open"}, {"first": None, "other": None}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["completions", "chat/completions"])
@pytest.mark.parametrize("given,strengths,gates", [
    (None, {"first": 1.5, "other": 2.0}, READ),
    ({"iti_alpha": {"other": -1.0}}, {"first": 1.5, "other": -1.0}, READ),
    ({"iti_gate": False}, {"first": 1.5, "other": 2.0}, LEFT_OUT),
    ({"iti_alpha": 1, "iti_gate": False}, {"first": 1.0, "other": 2.0}, LEFT_OUT),
    ({"iti_alpha": {"default": 0, "other": 0}}, {"first": 0.0, "other": 0.0}, LEFT_OUT),
])  # fmt: skip
def test_where_a_gate_decides_the_answer_says_whether_it_was_open(given, strengths, gates, path, stream, gated):
    """The words are those of the strengths that the answer says, where its gate is not closed."""
    address, repo, model, tokenizer = gated
    asked = "f1?" if path == "completions" else [{"role": "user", "content": "f1?"}]
    field = "prompt" if path == "completions" else "messages"
    fields = {} if given is None else {"generation_config": given | {"max_new_tokens": 8, "eos_token_id": 2}}
    status, answer = status_of(address, path, model=str(repo), stream=stream, **{field: asked}, **fields)
    said = (first_event(answer) if stream else json.loads(answer))["iti"]
    assert status == 200 and strengths == {name: about["strength"] for name, about in said.items()}
    assert gates == {name: about["gate"] for name, about in said.items()}
    assert {about["scope"] for about in said.values()} == {"generated"}
    for about in said.values():
        for file, digest in about["directions_sha256"].items():
            assert digest == sha256((repo / file).read_bytes()).hexdigest()
    if path == "completions":
        ids = tokenizer(asked, return_tensors="pt")
    else:
        ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    applied = {name: strength * (gates[name] != "closed") for name, strength in strengths.items()}
    out = model.generate(**ids, iti_alpha=applied, iti_gate=False, do_sample=False, max_new_tokens=8)
    assert text_of(path, answer, stream) == tokenizer.decode(
        out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True
    )


@pytest.mark.parametrize("given,said", [
    ({"iti_alpha": 1.6}, "iti_alpha of 'first' is 1.6; expected from -1.5 to 1.5, which was not measured"),
    ({"iti_alpha": {"other": -2.5}}, "iti_alpha of 'other' is -2.5; expected from -2 to 2, which was not measured"),
    ({"iti_alpha": {"short": 1.0}}, "no behaviour is called 'short'"),
    ({"iti_gate": [1]}, "iti_gate is"),
])  # fmt: skip
def test_what_was_not_measured_is_422_also_without_a_sweep(given, said, gated):
    address, repo, *_ = gated
    for path, asked in (("completions", {"prompt": "f1?"}), ("chat/completions", {"messages": []})):
        status, text = status_of(address, path, model=str(repo), generation_config=given, **asked)
        assert status == 422 and said in json.loads(text)["detail"] and "measured from" not in text


def test_two_names_of_one_behaviour_are_one(gated):
    address, repo, *_ = gated

    def ask(**alphas: float) -> tuple[int, str]:
        return status_of(
            address, "completions", model=str(repo), prompt="f1?", generation_config={"iti_alpha": alphas}
        )

    answers = [json.loads(ask(**{name: 1.0})[1]) for name in ("first", "default")]
    assert answers[0]["iti"] == answers[1]["iti"] and answers[0]["iti"]["first"]["strength"] == 1.0
    status, text = ask(first=1.0, default=0.5)
    assert status == 422 and "names 'first' twice" in text


@pytest.mark.parametrize("alpha", [0.50001, -0.6, 3, 1e30])
def test_a_strength_that_the_sweep_did_not_measure_is_422(alpha, address):
    """The bundled repo's sweep: 0.1 to 0.5 inside its guards."""
    for stream in (False, True):
        given = {"iti_alpha": alpha}
        status, text = status_of(address, "completions", prompt=PROMPT, generation_config=given, stream=stream)
        said = json.loads(text)["detail"]
        assert status == 422 and f"is {float(alpha)!r}; expected from -0.5 to 0.5" in said and "measured" in said
        assert "ITI_ANY_STRENGTH" in said


def test_the_operator_may_allow_every_strength(tmp_path):
    with serving(tmp_path / "log", ROOT, "--any-strength") as address:
        given = {"iti_alpha": 3}
        status, text = status_of(address, "completions", prompt=PROMPT, generation_config=given)
        assert status == 200 and json.loads(text)["iti"]["default"]["strength"] == 3.0
        status, text = status_of(address, "completions", prompt=PROMPT, generation_config={"iti_alpha": float("nan")})
        assert status == 422 and "finite" in text


def test_a_server_of_the_base_is_found_plain_says_so_and_refuses_a_strength(canary, tmp_path):
    base = tmp_path / "base"
    export(ROOT, "llama", base, alpha=0.0)
    with serving(tmp_path / "log", base) as address:
        assert canary.verdict(ask_server(address, str(base))(canary)) == "plain"
        status, text = status_of(address, "completions", model=str(base), prompt=PROMPT)
        assert status == 200 and json.loads(text)["iti"] == {}
        given = {"iti_alpha": 0.5}
        status, text = status_of(address, "completions", model=str(base), prompt=PROMPT, generation_config=given)
        assert status == 422 and "iti_alpha is 0.5" in text and "is not steered" in text


NO_STRENGTHS = ["abc", "0.5", float("nan"), float("inf"), True, [0.1], [0.1, 0.2], [], {"default": "x"},
                {"default": [0.1]}]  # fmt: skip


@pytest.mark.parametrize("alpha", NO_STRENGTHS)
def test_what_is_no_strength_is_422(alpha, address):
    for given in ({"iti_alpha": alpha}, json.dumps({"iti_alpha": alpha})):
        status, text = status_of(address, "completions", prompt=PROMPT, generation_config=given)
        assert status == 422 and "expected a finite number" in text


@pytest.mark.parametrize("name,nearest", [
    ("iti_alpah", "iti_alpha"), ("ITI_ALPHA", "iti_alpha"), ("iti_gates", "iti_gate"),
    ("max_new_token", "max_new_tokens"), ("self", ""),
])  # fmt: skip
def test_a_name_that_is_not_known_is_422_and_the_nearest_is_said(name, nearest, address):
    for given in ({name: 0.5}, json.dumps({name: 0.5})):
        status, text = status_of(address, "completions", prompt=PROMPT, generation_config=given)
        assert status == 422 and f"{name} is not a known field" in text and f"did you mean {nearest}" in text


NO_OBJECTS = ["[]", "[0.5]", "0.5", "null", "true", '"x"', "", "{", "[" * 100_000, ["iti_alpha"], 0.5, True, 0, [],
              '{"iti_alpha": 1e999}', '{"iti_gate": [1]}', {"iti_gate": 0}, {"max_new_tokens": "x"}]  # fmt: skip


@pytest.mark.parametrize("given", NO_OBJECTS)
def test_a_generation_config_that_is_none_is_422(given, address):
    status, text = status_of(address, "completions", prompt=PROMPT, generation_config=given)
    said = json.loads(text)["detail"]
    assert status == 422 and said.startswith(("generation_config", "iti_alpha is ", "iti_gate is ")), said


def test_continuous_batching_refuses_a_requests_strength(batching):
    alpha = {"generation_config": json.dumps({"iti_alpha": 0.0, "max_new_tokens": 8, "eos_token_id": 1})}
    for stream in (False, True):
        status, said = status_of(batching, "completions", prompt=PROMPT, stream=stream, **alpha)
        assert status == 422 and "every request has the strength of the repo" in said
    own = {"generation_config": json.dumps({"max_new_tokens": 8, "eos_token_id": 1})}
    status, said = status_of(batching, "completions", prompt=PROMPT, **own)
    assert status == 200 and json.loads(said)["choices"][0]["text"].startswith("    return n > 1")
    assert json.loads(said)["iti"] == {"default": {"strength": 0.5} | ORIGIN}
    status, said = status_of(batching, "completions", prompt=PROMPT, **alpha)  # not from the first request's manager
    assert status == 422


def test_continuous_batching_without_the_ends_of_prompts_says_why_it_cannot_steer(steered):
    HTTPException = pytest.importorskip("fastapi").HTTPException
    steered.iti_scope = "generated"
    handler = SimpleNamespace(generation_state=SimpleNamespace(_continuous_batching=True))
    resolve = checked(lambda handler, body: ("id", steered), allow_any=True)
    token = ANSWER.set(SimpleNamespace(tell=print))
    with pytest.raises(HTTPException) as error:
        resolve(handler, {})
    ANSWER.reset(token)
    assert error.value.status_code == 422 and "start the server without the flag" in error.value.detail


def test_a_batch_that_would_not_be_steered_so_is_refused(steered):
    with pytest.raises(ValueError, match="iti_alpha is passed, but continuous batching has one strength"):
        steered.generate_batch([[5, 6, 7]], iti_alpha=0.0)
    asked = GenerationConfig(max_new_tokens=2, iti_alpha=0.0)
    for call in (steered.generate_batch, lambda _, **given: steered.init_continuous_batching(**given)):
        with pytest.raises(ValueError, match="generation config has an iti_alpha, but continuous batching"):
            call([[5, 6, 7]], generation_config=asked)
    steered.generation_config.iti_alpha = 0.0
    with pytest.raises(ValueError, match=r"model\.generation_config: iti_alpha is 0\.0; expected no such field"):
        steered.generate_batch([[5, 6, 7]], generation_config=GenerationConfig(max_new_tokens=2))
