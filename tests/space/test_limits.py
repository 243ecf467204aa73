"""What one address may ask of the page: counted over HTTP, before a call is queued, read or answered."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from iti_llama.toolkit.cli.options import load
from iti_llama.toolkit.foundation.package import ROOT


gradio_client = pytest.importorskip("gradio_client", reason="gradio is not installed: make test-space")

from iti_llama.toolkit.space.build_page import page_of  # noqa: E402
from iti_llama.toolkit.space.page import Limits  # noqa: E402


A_MINUTE = 7


@pytest.fixture
def page():
    model, tokenizer = load(str(ROOT))
    return page_of(str(ROOT), model, tokenizer, limits=Limits(a_minute=A_MINUTE, max_new_tokens=2))


@pytest.fixture
def url(page):
    app, url, _ = page.launch(block=False)
    yield url
    app.blocks.close() if hasattr(app, "blocks") else None


def status_of(address: str, body: dict | str) -> int:
    data = (body if isinstance(body, str) else json.dumps(body)).encode()
    try:
        with urlopen(Request(address, data, {"Content-Type": "application/json"}), timeout=60) as reply:
            return reply.status
    except HTTPError as error:
        return error.code


def test_the_calls_of_one_address_are_counted_before_they_queue(url):
    body = {"data": ["def f(x):", 0.5, "all", None]}
    with ThreadPoolExecutor(30) as pool:
        found = list(pool.map(lambda _: status_of(f"{url}gradio_api/call/answer", body), range(90)))
    assert (found.count(200), found.count(422)) == (A_MINUTE, 90 - A_MINUTE)


@pytest.mark.parametrize("path", ["run/load_example", "queue/join", "call/answer", "api/answer", "call/v2/answer"])
def test_every_function_of_the_page_is_counted(url, path):
    bodies = [{"data": [0], "session_hash": "x", "fn_index": 0}] * 20 + ["no JSON"] * 20
    found = [status_of(f"{url}gradio_api/{path}", body) for body in bodies]
    refused = status_of(f"{url}gradio_api/{path}", bodies[0])
    assert refused == 422 and found[A_MINUTE:] == [422] * (40 - A_MINUTE)


def test_one_address_does_not_use_up_what_another_may_ask(page):
    for _ in range(A_MINUTE):
        page.rate("192.0.2.1")
    with pytest.raises(ValueError, match=f"{A_MINUTE} answers a minute"):
        page.rate("192.0.2.1")
    page.rate("192.0.2.2")


def test_who_asks_too_often_is_told_so_at_once(url):
    client = gradio_client.Client(url, verbose=False)
    for _ in range(A_MINUTE):
        client.predict("def f(x):", 0.5, api_name="/answer")
    began = time.monotonic()
    with pytest.raises(Exception, match=f"{A_MINUTE} answers a minute are given: ask again in"):
        client.predict("def f(x):", 0.5, api_name="/answer")
    assert time.monotonic() - began < 10
