"""`iti-llama chat`"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

import typer
from rich.markup import escape

from iti_llama.iti_directions import check_alpha

from ..measure.settings import TaskRequest
from .expand_settings import expand_settings, option_type
from .options import Sampling, Seed, SteeredModel, console


HELP = "/alpha NUMBER, /plain, /system TEXT, /new, /quit"

Answer = Callable[[list[dict], str | None, float], str]
"""`answer(messages, system, alpha)` prints an answer and returns it."""


@expand_settings()
def chat(
    steered: SteeredModel,
    sampling: Sampling,
    alpha: Annotated[float | None, typer.Option(help="strength; by default the repo's")] = None,
    system: option_type(TaskRequest, "system") = None,
    seed: Seed = 0,
) -> None:
    """Talk with a steered model in the terminal.

    Example: iti-llama chat --model REPO

    /alpha NUMBER changes the strength, /plain answers the last question again without steering, /system TEXT sets the
    system message, /new starts over, /quit ends. Ctrl-C stops an answer.
    """
    from ..foundation.tokenize import chat_prompt
    from .stream_answer import stream_answer

    model, tokenizer = steered.load()
    if not tokenizer.chat_template:
        advice = "expected one; without it use `iti-llama generate`"
        raise ValueError(f"{steered.repo}: its tokenizer has no chat template; {advice}")
    how = sampling.kwargs
    if how:
        import torch

        torch.manual_seed(seed)

    def answer(messages: list[dict], system: str | None, alpha: float) -> str:
        given = chat_prompt(tokenizer, messages, system=system)
        return stream_answer(model, tokenizer, given, alpha, sampling.room(model), **how)

    talk = Talk(answer, model.iti_alpha if alpha is None else alpha, system)
    console.print(f"[bold]{escape(steered.repo)}[/bold], alpha {talk.alpha:g}; {HELP}", highlight=False)
    while talk.going:
        try:
            talk.take(input("> "))
        except EOFError:
            break


@dataclass
class Talk:
    """A conversation: the messages so far, without the answers to /plain."""

    answer: Answer
    alpha: float
    system: str | None = None
    messages: list[dict] = field(default_factory=list)
    going: bool = True

    def take(self, line: str) -> None:
        """Take a line: run a command, or answer a message."""
        word, _, rest = line.strip().partition(" ")
        if not word:
            return
        if not word.startswith("/"):
            self._ask([*self.messages, {"role": "user", "content": line.strip()}])
        elif word == "/quit":
            self.going = False
        elif word == "/new":
            self.messages = []
        elif word == "/system":
            self.system = rest.strip() or None
            console.print(f"the system message is {self.system!r}", markup=False)
        elif word == "/alpha":
            self._set_alpha(rest)
        elif word == "/plain" and self.messages:
            self._try(lambda: self.answer(self.messages[:-1], self.system, 0.0))
        elif word == "/plain":
            console.print("there is no question yet")
        else:
            console.print(f"{word} is unknown; expected {HELP}", markup=False)

    def _ask(self, messages: list[dict]) -> None:
        text = self._try(lambda: self.answer(messages, self.system, self.alpha))
        if text is not None:
            self.messages = [*messages, {"role": "assistant", "content": text}]

    def _try(self, answer: Callable[[], str]) -> str | None:
        """An answer; None if it was stopped or failed, for example because the model's positions are full."""
        try:
            return answer()
        except KeyboardInterrupt:
            console.print("\nstopped: the question and its answer are not kept")
            return None
        except ValueError as error:
            console.print(f"[red]error:[/red] {escape(str(error))}; /new starts over", highlight=False)
            return None

    def _set_alpha(self, text: str) -> None:
        try:
            self.alpha = check_alpha(float(text))
        except ValueError:
            console.print(f"alpha is {text!r}; expected a finite number", markup=False)
            return
        console.print(f"alpha {self.alpha:g}", highlight=False)
