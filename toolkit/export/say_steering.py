"""What an answer says about the steering that made it, and how a server puts that into the answer. This module is
light: see `foundation.strength_range`."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from iti_llama.iti_directions import file_sha256


if TYPE_CHECKING:
    from ..repo.steered_repo import SteeredRepo

FIELD = "iti"
"""The field of an answer that holds {behaviour: `Origin.say`}, or {} in a plain answer."""


@dataclass(frozen=True)
class Origin:
    """Where a steering came from. repo: its name. commit: None for a folder. digests: SHA-256 of its directions files,
    by name."""

    repo: str
    commit: str | None
    digests: Mapping[str, str]

    def say(self, strength: float, scope: str, gate: str | None = None) -> dict:
        """What an answer says. scope: the positions that were shifted. gate: "open" or "closed" if a gate decided; a
        closed one left the answer plain at any strength."""
        return {"strength": strength, "repo": self.repo, "commit": self.commit, "directions_sha256": self.digests,
                "scope": scope, "gate": gate}  # fmt: skip


def public_name(repo: str) -> str:
    """A repo's name on the Hub, or that of its folder, without the path."""
    return Path(repo).resolve().name if Path(repo).is_dir() else repo


def origins_of(model, repo: "SteeredRepo") -> dict[str, Origin]:
    """The origin of each behaviour of a model that was loaded from `repo`."""
    name = public_name(model.name_or_path)
    return {
        behaviour.name: Origin(
            name, model._iti_revision, {behaviour.file: file_sha256(repo.opened.get(behaviour.file))}
        )
        for behaviour in repo.behaviours.values()
    }


def saying(send: Callable, about: Callable[[], Awaitable[dict]]) -> Callable:
    """An ASGI `send` that puts `about()` into an answer: as the first field of its JSON object, or of the first event
    of its stream. An error stays as it is."""
    done = False

    async def say(message: dict) -> None:
        nonlocal done
        if message["type"] == "http.response.start":
            done = message["status"] != 200
            if not done:
                message = message | {"headers": without_length(message["headers"])}
        elif message["type"] == "http.response.body" and not done and b"{" in message.get("body", b""):
            done, (before, after) = True, message["body"].split(b"{", 1)
            field = f'"{FIELD}": {json.dumps(await about())}, '.encode()
            message = message | {"body": before + b"{" + field + after}
        await send(message)

    return say


def without_length(headers) -> list:
    return [(name, value) for name, value in headers if name.lower() != b"content-length"]
