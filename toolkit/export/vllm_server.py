"""The middleware of a vLLM server: `--middleware iti_llama.toolkit.export.vllm_server.Steering`. It turns the model's
name into strengths, gives each request the `cache_salt` of its strengths, and says in each answer what steered it."""

import json
from collections.abc import Mapping

from ..foundation.strength_range import any_strength
from .say_steering import saying, without_length
from .vllm_plugin import (
    ARGUMENT,
    Adapter,
    adapters_of_server,
    arguments_of,
    strengths_of_argument,
    strengths_of_model,
)


STEERED_PATHS = ("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages")
"""The paths where vLLM takes `vllm_xargs` and `cache_salt`."""


class Refusal(ValueError):
    """Why a request is refused: the HTTP status, and the field of the request that is wrong."""

    def __init__(self, status: int, field: str, message: object):
        super().__init__(str(message))
        self.status, self.field = status, field

    def answer(self) -> bytes:
        """The body, in the form of vLLM's own errors."""
        kind = {404: "NotFoundError"}.get(self.status, "BadRequestError")
        error = {"message": str(self), "type": kind, "param": self.field, "code": self.status}
        return json.dumps({"error": error}).encode()


class Steering:
    """ASGI middleware. adapters: by default those in the server's environment."""

    def __init__(self, app, adapters: Mapping[str, Adapter] | None = None):
        self.app = app
        self.adapters = adapters_of_server() if adapters is None else adapters

    async def __call__(self, scope, receive, send) -> None:
        path = scope.get("path", "").removeprefix(scope.get("root_path", "")).rstrip("/")
        if scope["type"] == "http" and scope["method"] == "GET" and path == "/v1/models":
            await self.list_models(scope, receive, send)
        elif scope["type"] == "http" and scope["method"] == "POST" and path in STEERED_PATHS:
            await self.steer(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def steer(self, scope, receive, send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":  # the client has gone
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        try:
            body, about = self.rewrite(body, base_of(scope))
        except Refusal as refusal:
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
            await send({"type": "http.response.body", "body": refusal.answer()})
            return
        parts = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay():
            return next(parts, None) or await receive()

        async def said() -> dict:
            return about

        length = (b"content-length", str(len(body)).encode())
        await self.app(scope | {"headers": [*without_length(scope["headers"]), length]}, replay, saying(send, said))

    def rewrite(self, body: bytes, base: str | None) -> tuple[bytes, dict]:
        """A request as vLLM gets it, and what its answer says. A body that is not a JSON object is left to vLLM.
        `base`: the name of the plain model.

        Raises:
            Refusal: if the strengths are refused.
        """
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError):
            return body, self.about({})
        if not isinstance(fields, dict):
            return body, self.about({})
        strengths, named = self.strengths_of(fields)
        try:
            extra, salt = arguments_of(strengths, self.adapters, fields.get("cache_salt"))
        except ValueError as error:
            raise Refusal(400, "cache_salt", error) from None
        if extra and fields.get("use_beam_search"):
            raise Refusal(400, "use_beam_search", "use_beam_search: vLLM drops a request's strengths in beam search")
        if named:
            fields["model"] = base
        if strengths:
            others = {name: value for name, value in (fields.get("vllm_xargs") or {}).items() if name != ARGUMENT}
            fields |= {"vllm_xargs": others | extra, "cache_salt": salt}
        return (json.dumps(fields).encode() if strengths else body), self.about(strengths)

    def strengths_of(self, fields: dict) -> tuple[dict[str, float], bool]:
        """The strengths of a request, and whether its model's name asks for them. Raises as `rewrite` does."""
        model, xargs = fields.get("model"), fields.get("vllm_xargs") or {}
        if not isinstance(xargs, dict):
            raise Refusal(400, "vllm_xargs", f"vllm_xargs is {str(xargs)[:80]!r}; expected an object")
        unknown = next((name for name in xargs if name.startswith(ARGUMENT) and name != ARGUMENT), None)
        if unknown is not None:
            raise Refusal(400, "vllm_xargs", f"vllm_xargs has {unknown[:80]!r}; did you mean {ARGUMENT!r}?")
        try:
            by_name = strengths_of_model(str(model), self.adapters, any_strength())
        except ValueError as error:
            raise Refusal(404, "model", error) from None
        if ARGUMENT not in xargs:
            return by_name or {}, by_name is not None
        if by_name is not None:
            raise Refusal(400, "vllm_xargs", f"model {model!r} and vllm_xargs both ask for strengths; expected one")
        try:
            return strengths_of_argument(xargs[ARGUMENT], self.adapters, any_strength()), False
        except ValueError as error:
            raise Refusal(400, "vllm_xargs", error) from None

    def about(self, strengths: Mapping[str, float]) -> dict:
        return {name: self.adapters[name].about(strength) for name, strength in strengths.items()}

    async def list_models(self, scope, receive, send) -> None:
        """Send the server's list with a model for each adapter."""
        start, body = {}, b""

        async def add(message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                return
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            if start["status"] == 200:
                listed = json.loads(body)
                first = listed["data"][0]
                listed["data"] += [first | {"id": name, "parent": first["id"]} for name in self.adapters]
                body = json.dumps(listed).encode()
            await send(start | {"headers": without_length(start["headers"])})
            await send({"type": "http.response.body", "body": body})

        await self.app(scope, receive, add)


def base_of(scope) -> str | None:
    """The name of the plain model on this server."""
    models = getattr(getattr(scope.get("app"), "state", None), "openai_serving_models", None)
    return None if models is None else models.base_model_paths[0].name
