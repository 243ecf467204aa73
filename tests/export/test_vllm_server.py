"""The middleware before vLLM: it makes names to arguments, keeps caches apart, and says what steered an answer. The
server behind it is one that echoes; vLLM itself is asked in `tests/engines/test_vllm.py`."""

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from iti_llama.toolkit.export.export import export
from iti_llama.toolkit.export.vllm_plugin import arguments_of, check_arguments, read_adapters
from iti_llama.toolkit.export.vllm_server import STEERED_PATHS, Steering


PATH = "/v1/completions"


@pytest.fixture
def adapters(one_repo, tmp_path):
    export(one_repo, "vllm", tmp_path / "vllm", with_canary=False)
    known = read_adapters(f"good={tmp_path / 'vllm'}")
    return known | {"other": replace(known["good"], name="other", scope="generated")}


class Echo:
    """Answers with the request that it got, in pieces."""

    def __init__(self, status: int = 200, stream: bool = False):
        self.status, self.stream, self.got = status, stream, None

    async def __call__(self, scope, receive, send):
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message.get("more_body"):
                break
        self.got = json.loads(body) if body else None
        answer = json.dumps({"object": "list", "data": [{"id": "base"}], "got": self.got}).encode()
        answer = b"data: " + answer + b'\n\ndata: {"last": 1}\n\n' if self.stream else answer
        length = [(b"content-length", str(len(answer)).encode())]
        assert dict(scope["headers"]).get(b"content-length", str(len(body)).encode()) == str(len(body)).encode()
        await send({"type": "http.response.start", "status": self.status, "headers": length})
        for piece in (answer[:3], answer[3:20], answer[20:]):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def call(app, adapters, body=b"", path=PATH, method="POST") -> tuple[int, bytes]:
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    pieces = [{"type": "http.request", "body": body[:5], "more_body": True},
              {"type": "http.request", "body": body[5:], "more_body": False}]  # fmt: skip
    said, models = [], SimpleNamespace(base_model_paths=[SimpleNamespace(name="base")])

    async def receive():
        return pieces.pop(0)

    async def send(message):
        said.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": [(b"content-length", str(len(body)).encode())],
             "app": SimpleNamespace(state=SimpleNamespace(openai_serving_models=models))}  # fmt: skip
    asyncio.run(Steering(app, adapters)(scope, receive, send))
    answer = b"".join(message.get("body", b"") for message in said)
    length = dict(said[0]["headers"]).get(b"content-length")
    assert length is None or int(length) == len(answer)
    return said[0]["status"], answer


@pytest.mark.parametrize("path", STEERED_PATHS)
@pytest.mark.parametrize(
    "asked", [{"model": "good@0.5"}, {"model": "base", "vllm_xargs": {"iti": "good=.5", "seed": 3}},
              {"vllm_xargs": {"iti": "good=0.50"}}]
)  # fmt: skip
def test_a_name_or_an_argument_reaches_the_engine_with_its_salt(asked, path, adapters):
    app = Echo()
    status, answer = call(app, adapters, asked | {"prompt": "x"}, path)
    assert status == 200 and app.got["prompt"] == "x" and app.got.get("model", "base") == "base"
    assert check_arguments(app.got["vllm_xargs"], adapters, False) == {"good": 0.5}
    assert app.got["cache_salt"] == arguments_of({"good": 0.5}, adapters)[1]
    assert app.got["vllm_xargs"].get("seed") == asked.get("vllm_xargs", {}).get("seed")
    about = json.loads(answer)["iti"]
    digest = adapters["good"].behaviours[0].sha256
    assert about == {"good": {"strength": 0.5, "repo": "repo", "commit": None, "scope": "all", "gate": None,
                              "directions_sha256": {"iti_directions.safetensors": digest}}}  # fmt: skip


def test_a_plain_request_is_left_as_it_is(adapters):
    for body in ({"model": "base", "prompt": "x", "cache_salt": "mine", "vllm_xargs": {"seed": 3}}, {"model": "x@1"}):
        app = Echo()
        status, answer = call(app, adapters, body)
        assert status == 200 and app.got == body and json.loads(answer)["iti"] == {}


def test_strength_0_is_a_plain_request(adapters):
    app = Echo()
    call(app, adapters, {"model": "good@0", "prompt": "x"})
    assert app.got == {"model": "base", "prompt": "x", "vllm_xargs": {}, "cache_salt": None}


@pytest.mark.parametrize(
    "body,status,says",
    [({"model": "good@9"}, 404, "is 9.0; expected from -1.5 to 1.5"), ({"model": "good@nan"}, 404, "finite number"),
     ({"model": "good@0.1+third@1"}, 404, "no adapter is called 'third'; this server has good, other"),
     ({"vllm_xargs": {"iti": "good=9"}}, 400, "is 9.0; expected from -1.5 to 1.5"),
     ({"vllm_xargs": {"iti": 0.5}}, 400, "good, other"), ({"vllm_xargs": {"iti": None}}, 400, "expected a number"),
     ({"vllm_xargs": {"iti_alpha": 0.5}}, 400, "did you mean 'iti'"), ({"vllm_xargs": [1]}, 400, "expected an object"),
     ({"vllm_xargs": {"iti_salted": "x"}}, 400, "did you mean"),
     ({"model": "good@0.5", "vllm_xargs": {"iti": "good=1"}}, 400, "both ask for strengths"),
     ({"model": "good", "use_beam_search": True}, 400, "use_beam_search"),
     ({"model": "good", "cache_salt": 5}, 400, "cache_salt"), ({"model": "base", "cache_salt": "iti-1"}, 400, "salt")],
)  # fmt: skip
def test_what_cannot_be_had_is_answered_with_the_reason(body, status, says, adapters):
    app = Echo()
    found, answer = call(app, adapters, body)
    error = json.loads(answer)["error"]
    assert (found, error["code"], app.got) == (status, status, None) and says in error["message"]


def test_a_stream_says_it_in_its_first_event(adapters):
    _, answer = call(Echo(stream=True), adapters, {"model": "good@0.5", "stream": True})
    first, last = (json.loads(event.removeprefix("data: ")) for event in answer.decode().strip().split("\n\n"))
    assert first["iti"]["good"]["strength"] == 0.5 and first["got"]["stream"] and last == {"last": 1}


def test_an_error_of_the_engine_is_left_as_it_is(adapters):
    status, answer = call(Echo(status=400), adapters, {"model": "good@0.5"})
    assert status == 400 and "iti" not in json.loads(answer)


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_left_to_the_engine(body, adapters):
    class Raw(Echo):
        async def __call__(self, scope, receive, send):
            self.got = b""
            while (message := await receive())["body"] or message.get("more_body"):
                self.got += message["body"]
                if not message.get("more_body"):
                    break
            await send({"type": "http.response.start", "status": 422, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})

    app = Raw()
    assert call(app, adapters, body) == (422, b"{}") and app.got == body


def test_the_servers_list_names_the_adapters(adapters):
    status, answer = call(Echo(), adapters, path="/v1/models", method="GET")
    models = json.loads(answer)["data"]
    assert status == 200 and [model["id"] for model in models] == ["base", "good", "other"]
    assert models[1]["parent"] == "base"
