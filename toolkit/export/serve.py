"""transformers' own server, with a steered model: it loads the classes that transformers exports, and ours are not
among them until they are put there."""

import functools
import json
import sys
from collections.abc import Sequence


def serve(repo: str, options: Sequence[str]) -> None:
    """Run `transformers serve REPO OPTIONS`, which answers until it is stopped.

    Raises:
        ValueError: where this transformers has no server (4), or its extra is not installed.
    """
    import transformers

    import iti_llama

    try:
        from transformers.cli.serving.utils import BaseHandler
        from transformers.cli.transformers import main
    except ImportError:
        raise ValueError(
            f"transformers {transformers.__version__} has no such server, or it is not installed: "
            '`pip install "transformers[serving]>=5.5"`'
        ) from None
    iti_llama.register()
    for name in ("ITILlamaForCausalLM", "ITILlamaModel"):
        setattr(transformers, name, getattr(iti_llama, name))
    BaseHandler._resolve_model = checked(BaseHandler._resolve_model)
    sys.argv = ["transformers", "serve", repo, *options]
    main()


def checked(resolve):
    """The server's method that finds a request's model; a strength that cannot be had is answered with HTTP 422."""

    @functools.wraps(resolve)
    def resolve_and_check(handler, body: dict):
        from fastapi import HTTPException

        resolved = resolve(handler, body)
        try:
            check_strength(body, resolved[1], handler.generation_state._continuous_batching)
        except ValueError as error:
            raise HTTPException(status_code=422, detail=str(error)) from None
        return resolved

    return resolve_and_check


def check_strength(body: dict, model, continuous: bool) -> None:
    """Raises `ValueError` if the `generation_config` of a request is no object, its `iti_alpha` is no strength that
    the model has, or the server batches continuously: then all requests have the model's own."""
    from iti_llama import ITILlamaForCausalLM

    if not isinstance(model, ITILlamaForCausalLM):
        return
    fields = {} if body.get("generation_config") is None else _read_fields(body["generation_config"])
    alpha = fields.get("iti_alpha")
    if not isinstance(gate := fields.get("iti_gate"), bool | None):
        raise ValueError(f"iti_gate is {str(gate)[:100]!r}; expected true or false")
    if alpha is None:
        return
    if continuous:
        raise ValueError(
            f"iti_alpha is {alpha!r}, but with --continuous-batching every request has the strength of the repo's "
            "config.json: leave it out, or start the server without"
        )
    model._iti_rows(alpha, 1)


def _read_fields(text: object) -> dict:
    """The `generation_config` of a request. Raises `ValueError` unless it is an object of JSON, written as a text."""
    wanted = "expected a text that holds an object of JSON"
    if not isinstance(text, str):
        raise ValueError(f"generation_config is {str(text)[:100]!r}; {wanted}")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"generation_config is {text[:100]!r} ({type(error).__name__}); {wanted}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"generation_config is {text[:100]!r}; {wanted}")
    return fields
