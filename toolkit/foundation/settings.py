"""Settings as dataclasses. A notebook passes them; the command line has an option for each field."""

from dataclasses import MISSING, dataclass, field, fields
from typing import Any


def setting(default: Any = MISSING, help: str = "", **how) -> Any:
    """A field of a settings dataclass. `help` says what it means, here and on the command line. `how` takes flags (the
    option's names, if they differ from the field's), argument (whether it stands without a name), words ({a word: the
    value that it stands for}), and whatever `typer.Option` takes."""
    return field(default=default, metadata={"help": help, **how})


def like(settings: type, name: str, *default: Any) -> Any:
    """The setting of that name in another dataclass, with another default where one is given."""
    model = next(own for own in fields(settings) if own.name == name)
    return field(default=default[0] if default else model.default, metadata=model.metadata)


@dataclass(frozen=True)
class Placement:
    """Where a model is loaded, and in which precision."""

    device_map: str = setting("auto", "as in from_pretrained: auto, cpu, cuda:0 and so on")
    dtype: str = setting("auto", "auto, float32, bfloat16 or float16")

    @property
    def kwargs(self) -> dict[str, str]:
        """The arguments for `from_pretrained`."""
        return {"device_map": self.device_map, "dtype": self.dtype}
