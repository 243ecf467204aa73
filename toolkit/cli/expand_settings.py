"""Make a command's options from its settings, one for each field of a dataclass, so that name, default and help have
one home, in the library."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

import typer


def expand_settings(**defaults: Any) -> Callable:
    """A decorator: a parameter that is annotated with a settings dataclass becomes an option for each of its fields
    (`setting`), also for those of dataclasses inside it. `defaults`: defaults that differ for this command. Fields
    with the same name in two dataclasses become one option. A field without help gets no option."""

    def decorate(command: Callable) -> Callable:
        signature = inspect.signature(command)
        options, groups = {}, {}
        for parameter in signature.parameters.values():
            if is_dataclass(parameter.annotation):
                groups[parameter.name] = parameter.annotation
                options |= {entry.name: _option(entry, defaults) for entry in _settings(parameter.annotation)}
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
    """The annotation of an option for one field of `settings`, for a command that needs only this one."""
    return next(_option(entry, {}).annotation for entry in _settings(settings) if entry.name == name)


def _settings(group: type) -> Iterator[Field]:
    for entry in fields(group):
        if is_dataclass(entry.type):
            yield from _settings(entry.type)
        elif entry.metadata:
            yield entry


def _make(group: type, given: dict[str, Any]) -> Any:
    values = {entry.name: _make(entry.type, given) for entry in fields(group) if is_dataclass(entry.type)}
    values |= {entry.name: _value(entry, given[entry.name]) for entry in fields(group) if entry.metadata}
    return group(**values)


def _kinds(entry: Field) -> tuple[list[type], bool, bool]:
    """The types that a field may have; whether it is a sequence of them; whether it may be None."""
    kinds = list(get_args(entry.type)) if isinstance(entry.type, UnionType) else [entry.type]
    optional = type(None) in kinds
    kinds = [kind for kind in kinds if kind is not type(None)]
    many = get_origin(kinds[0]) is not None
    return list(get_args(kinds[0])) if many else kinds, many, optional


def _option(entry: Field, defaults: dict[str, Any]) -> inspect.Parameter:
    how = dict(entry.metadata)
    words, flags, argument = how.pop("words", {}), how.pop("flags", ()), how.pop("argument", False)
    kinds, many, optional = _kinds(entry)
    default = defaults.get(entry.name, inspect.Parameter.empty if entry.default is MISSING else entry.default)
    kind = kinds[0] if len(kinds) == 1 else str  # str or a path
    if words or many:
        kind = str
        word = next((word for word, value in words.items() if value == default), None)
        default = word or (",".join(map(str, default)) if many and default is not None else default)
        default = str(default) if default is not None else None
    if kind is bool and not flags:
        name = f"--{entry.name.replace('_', '-')}"
        flags = (f"{name}/{name.replace('--', '--no-', 1)}",) if default else (name,)
    kind = kind | None if optional and default is None else kind
    annotation = Annotated[kind, typer.Argument(**how) if argument else typer.Option(*flags, **how)]
    return inspect.Parameter(
        entry.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation
    )


def _value(entry: Field, text: Any) -> Any:
    """The value that an option's text stands for. Raises `ValueError`, naming the option, if it is not one."""
    (kind, *_), many, _ = _kinds(entry)
    words = entry.metadata.get("words", {})
    if text is None or not (words or many):
        return text
    if text in words:
        return words[text]
    try:
        return tuple(kind(part) for part in text.split(",")) if many else kind(text)
    except ValueError:
        wanted = "numbers separated by commas" if many else "a number"
        expected = ", or ".join([wanted, *words])
        raise ValueError(f"--{entry.name.replace('_', '-')} is {text!r}; expected {expected}") from None
