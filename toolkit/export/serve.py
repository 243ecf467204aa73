"""Run transformers' own server with a steered model, and put what steered an answer into it. The server loads the
classes that transformers exports, so ours are put among them."""

import asyncio
import functools
import json
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from contextvars import ContextVar, copy_context
from difflib import get_close_matches

from iti_llama import ITILlamaForCausalLM
from iti_llama.generation_iti_llama import STRENGTHS
from iti_llama.iti_directions import behaviours_of, check_alpha

from ..foundation.strength_range import StrengthRange, any_strength
from ..repo.steered_repo import SteeredRepo
from .say_steering import Origin, origins_of, saying


def serve(repo: str, options: Sequence[str], allow_any: bool = False) -> None:
    """Run `transformers serve REPO OPTIONS`, which answers until it is stopped. allow_any: whether requests may also
    ask for strengths that were not measured, see `SteeredRepo.strengths_allowed`.

    Raises:
        ValueError: if this transformers has no server (4), or its extra is not installed.
    """
    import transformers

    import iti_llama

    try:
        from transformers.cli.serving import server, utils
        from transformers.cli.serving.utils import BaseHandler, InferenceThread
        from transformers.cli.transformers import main
    except ImportError:
        raise ValueError(
            f"transformers {transformers.__version__} has no server, or its extra is not installed: "
            '`pip install "transformers[serving]>=5.5"`'
        ) from None
    iti_llama.register()
    transformers.ITILlamaForCausalLM, transformers.ITILlamaModel = AnsweringLlama, iti_llama.ITILlamaModel
    # transformers 5.24 has no public way to look into a request; these three names are the way in.
    BaseHandler._resolve_model = checked(BaseHandler._resolve_model, allow_any or any_strength())
    utils.InferenceThread = in_context(InferenceThread)
    server.build_server = with_steering_said(server.build_server)
    sys.argv = ["transformers", "serve", repo, *options]
    main()


class Answer:
    """What the answer to one request will say. steering: `Origin.say` for each behaviour, before the gate is read;
    None until the request's model is known."""

    def __init__(self):
        self.steering: dict[str, dict] | None = None
        self.gates: Future[dict[str, str]] = Future()

    def tell(self, gates: dict[str, str]) -> None:
        """Set what the gate of each behaviour said. Only the first call counts."""
        if not self.gates.done():
            self.gates.set_result(gates)

    async def say(self) -> dict[str, dict]:
        gates = await asyncio.wrap_future(self.gates)
        return {name: steering | {"gate": gates.get(name)} for name, steering in self.steering.items()}


ANSWER: ContextVar[Answer | None] = ContextVar("iti_answer", default=None)
"""The answer to the request of this context."""


class AnsweringLlama(ITILlamaForCausalLM):
    """A steered model that tells the answer what its gate said."""

    @functools.cached_property
    def iti_offer(self) -> dict[str, tuple[Origin, StrengthRange]]:
        """The origin of each behaviour, and the strengths that a request may ask for."""
        if not self.iti_strengths:
            return {}
        repo = SteeredRepo.open(self.name_or_path, self._iti_revision)
        allowed = {behaviour.name: repo.strengths_allowed(behaviour) for behaviour in repo.behaviours.values()}
        return {name: (origin, allowed[name]) for name, origin in origins_of(self, repo).items()}

    def generate(self, *args, **kwargs):
        try:
            return super().generate(*args, **kwargs)
        finally:
            if (answer := ANSWER.get()) is not None:
                answer.tell({})  # in case it failed before it read the gate

    def _iti_open(self, *args, **kwargs) -> dict:
        opened, behaviours = super()._iti_open(*args, **kwargs), behaviours_of(vars(self.config))
        if (answer := ANSWER.get()) is not None:
            answer.tell({behaviours[key].name: "open" if rows.all() else "closed" for key, rows in opened.items()})
        return opened


def checked(resolve, allow_any: bool):
    """The server's method that finds a request's model. It answers HTTP 422 if the request cannot get what it asks."""

    @functools.wraps(resolve)
    def resolve_and_check(handler, body: dict):
        from fastapi import HTTPException

        resolved = resolve(handler, body)
        model, answer = resolved[1], ANSWER.get()
        try:
            fields = read_fields(body.get("generation_config"), model)
            batched = handler.generation_state._continuous_batching
            if batched and (getattr(model, "iti_scope", "all") != "all" or reads_gate(None, model)):
                raise ValueError(
                    "the repo has the scope 'generated' or a gate, but --continuous-batching sees no end of a prompt: "
                    "start the server without the flag"
                )
            if batched and "iti_alpha" in fields:
                raise ValueError(
                    f"iti_alpha is {fields['iti_alpha']!r}, but with --continuous-batching every request has the "
                    "strength of the repo's config.json: leave it out, or start the server without the flag"
                )
            strengths = read_strengths(fields.get("iti_alpha"), model, allow_any)
            gated = reads_gate(fields.get("iti_gate"), model) and any(strengths.values())
        except (ValueError, RecursionError) as error:
            raise HTTPException(status_code=422, detail=str(error)) from None
        if body.get("generation_config") is not None:
            body["generation_config"] = json.dumps(fields)
        answer.steering = {
            name: model.iti_offer[name][0].say(strength, model.iti_scope) for name, strength in strengths.items()
        }
        if not gated:
            answer.tell({})
        return resolved

    return resolve_and_check


def read_fields(given: object, model) -> dict:
    """The `generation_config` of a request, without null steering fields. Raises `ValueError`, naming the field, if it
    is neither an object nor a text that holds one, or has a field that the model's generation does not know."""
    from transformers import GenerationConfig

    if given is None:
        return {}
    wanted = "expected a JSON object, or a text that holds one"
    try:
        fields = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError) as error:
        raise ValueError(f"generation_config is {given[:100]!r} ({type(error).__name__}); {wanted}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"generation_config is {str(given)[:100]!r}; {wanted}")
    is_steered, known = isinstance(model, ITILlamaForCausalLM), list(vars(GenerationConfig()))
    for name in fields:
        if name in STRENGTHS and not is_steered:
            raise ValueError(f"generation_config: {name} is {fields[name]!r}, but {model.name_or_path} is not steered")
        if name not in (*known, *STRENGTHS):
            nearest = get_close_matches(name.lower(), [*known, *STRENGTHS], n=1, cutoff=0)[0]
            raise ValueError(f"generation_config: {name[:100]} is not a known field; did you mean {nearest}?")
    fields = {name: value for name, value in fields.items() if value is not None or name not in STRENGTHS}
    try:
        GenerationConfig(**fields)
    except Exception as error:  # it raises many kinds
        raise ValueError(f"generation_config: transformers refuses it: {type(error).__name__}: {error}") from None
    return fields


def read_strengths(alpha: object, model, allow_any: bool) -> dict[str, float]:
    """The strength of each behaviour if a request asks for `alpha`; {} for a model that is not steered. Raises
    `ValueError` if the request cannot have it."""
    strengths, named = dict(getattr(model, "iti_strengths", {})), set()
    if alpha is None:
        return strengths
    behaviours = behaviours_of(vars(model.config))
    for name, value in alpha.items() if isinstance(alpha, dict) else [("default", alpha)]:
        behaviour, strength = behaviours[model._iti_key(name)], check_alpha(value) + 0.0  # -0.0 is 0.0
        if behaviour.name in named:
            raise ValueError(f"iti_alpha names {behaviour.name!r} twice, once as 'default'; expected each once")
        if not allow_any:
            model.iti_offer[behaviour.name][1].check(strength, f"iti_alpha of {behaviour.name!r}")
        named.add(behaviour.name)
        strengths[behaviour.name] = strength
    return strengths


def reads_gate(gate: object, model) -> bool:
    """Whether a request that steers reads the model's gate. Raises `ValueError` if `gate` is set but there is none."""
    if not isinstance(gate, bool | None):
        raise ValueError(f"iti_gate is {str(gate)[:100]!r}; expected true or false")
    gates = {}
    if isinstance(model, ITILlamaForCausalLM):
        behaviours, held = model.model._iti_behaviours()
        gates = held.gates(behaviours)
    if gate is not None and not gates:
        raise ValueError(f"iti_gate is {gate!r}, but the directions of this model have no gate")
    return bool(gates) and gate is not False


def in_context(thread):
    """The server's class of threads that run a model, changed so that each call sees the context of its request."""

    class ContextThread(thread):
        def submit(self, call, *args, **kwargs):
            return super().submit(copy_context().run, call, *args, **kwargs)

        def async_submit(self, call, *args, **kwargs):
            return super().async_submit(copy_context().run, call, *args, **kwargs)

    return ContextThread


def with_steering_said(build_server):
    """The server's function that makes its app, with `SaySteering` around it."""

    @functools.wraps(build_server)
    def build(model_manager, *args, **kwargs):
        for loaded in model_manager.loaded_models.values():
            getattr(loaded.model, "iti_offer", None)  # read now, from the files that were loaded
        app = build_server(model_manager, *args, **kwargs)
        app.add_middleware(SaySteering)
        return app

    return build


class SaySteering:
    """ASGI middleware that puts what steered an answer into it."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        answer = Answer()
        ANSWER.set(answer)
        say = saying(send, answer.say)

        async def send_answer(message: dict) -> None:
            await (send if answer.steering is None else say)(message)

        await self.app(scope, receive, send_answer)
