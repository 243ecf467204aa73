"""A command's options from its settings: one for each field of a dataclass, so that name, default and help have one
home, in the library."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

import typer


def expand_settings(**defaults: Any) -> Callable:
    """A decorator: each parameter of a command that is annotated with a settings dataclass becomes an option for each
    of its fields (`setting`), of dataclasses inside it too. `defaults`: where the command's own differ. Fields of one
    name in two dataclasses are one option. A field without help is not asked for."""

    def decorate(command: Callable) -> Callable:
        signature = inspect.signature(command)
        options, groups = {}, {}
        for parameter in signature.parameters.values():
            if is_dataclass(parameter.annotation):
                groups[parameter.name] = parameter.annotation
                options |= {own.name: _option(own, defaults) for own in _settings(parameter.annotation)}
            else:
                options[parameter.name] = parameter
        ordered = sorted(options.values(), key=lambda option: option.default is not inspect.Parameter.empty)
        flat_signature = signature.replace(parameters=ordered)

        @wraps(command)
        def flat(*args, **kwargs):
            bound = flat_signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.arguments
            made = {name: _make(group, given) for name, group in groups.items()}
            return command(**{name: made.get(name, given.get(name)) for name in signature.parameters})

        flat.__signature__ = flat_signature
        flat.__annotations__ = {option.name: option.annotation for option in ordered}
        return flat

    return decorate


def option_type(settings: type, name: str) -> Any:
    """The annotation of an option that is a field of `settings`, for a command that has no more of them."""
    return next(_option(own, {}).annotation for own in _settings(settings) if own.name == name)


def _settings(group: type) -> Iterator[Field]:
    for own in fields(group):
        if is_dataclass(own.type):
            yield from _settings(own.type)
        elif own.metadata:
            yield own


def _make(group: type, given: dict[str, Any]) -> Any:
    values = {own.name: _make(own.type, given) for own in fields(group) if is_dataclass(own.type)}
    values |= {own.name: _value(own, given[own.name]) for own in fields(group) if own.metadata}
    return group(**values)


def _kinds(own: Field) -> tuple[list[type], bool, bool]:
    """The types that a field may have; whether it is a sequence of them; whether it may be None."""
    kinds = list(get_args(own.type)) if isinstance(own.type, UnionType) else [own.type]
    optional = type(None) in kinds
    kinds = [kind for kind in kinds if kind is not type(None)]
    many = get_origin(kinds[0]) is not None
    return list(get_args(kinds[0])) if many else kinds, many, optional


def _option(own: Field, defaults: dict[str, Any]) -> inspect.Parameter:
    how = dict(own.metadata)
    words, flags, argument = how.pop("words", {}), how.pop("flags", ()), how.pop("argument", False)
    kinds, many, optional = _kinds(own)
    default = defaults.get(own.name, inspect.Parameter.empty if own.default is MISSING else own.default)
    kind = kinds[0] if len(kinds) == 1 else str  # str or a path
    if words or many:
        kind = str
        word = next((word for word, value in words.items() if value == default), None)
        default = word or (",".join(map(str, default)) if many and default is not None else default)
        default = str(default) if default is not None else None
    if kind is bool and not flags:
        name = f"--{own.name.replace('_', '-')}"
        flags = (f"{name}/{name.replace('--', '--no-', 1)}",) if default else (name,)
    kind = kind | None if optional and default is None else kind
    annotation = Annotated[kind, typer.Argument(**how) if argument else typer.Option(*flags, **how)]
    return inspect.Parameter(own.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)


def _value(own: Field, text: Any) -> Any:
    """What an option's text stands for. Raises `ValueError`, naming the option, if it is none."""
    (kind, *_), many, _ = _kinds(own)
    words = own.metadata.get("words", {})
    if text is None or not (words or many):
        return text
    if text in words:
        return words[text]
    try:
        return tuple(kind(part) for part in text.split(",")) if many else kind(text)
    except ValueError:
        wanted = "numbers separated by commas" if many else "a number"
        expected = ", or ".join([wanted, *words])
        raise ValueError(f"--{own.name.replace('_', '-')} is {text!r}; expected {expected}") from None
