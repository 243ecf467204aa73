"""The page: Gradio blocks around `Steered`. Nothing that a visitor types reaches a file, a shell or the network."""

import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

import gradio as gr
import pandas as pd
from starlette.middleware import Middleware
from starlette.responses import JSONResponse

from iti_llama.iti_directions import check_alpha

from ..export.say_steering import FIELD, origins_of
from ..foundation.complete import function_body
from ..foundation.sandbox import Sandbox
from ..foundation.strength_range import any_strength
from ..measure.grade import grade
from ..repo.steered_repo import SteeredRepo
from .draw import CSS, answer_html, heads_css, safe_strengths, scale_html
from .steered import SIGNS, Answer, Asked, Steered


@dataclass(frozen=True)
class Limits:
    """The limits of a page that anybody may open.

    a_minute: the calls of one address: answers, requests of a page when it opens, chosen examples. waiting: the calls
    in the queue. seconds: the time for one answer. visitors: the addresses that are counted. any_strength: whether
    visitors may also ask for strengths that were not measured, see `SteeredRepo.strengths_allowed`.
    """

    max_new_tokens: int = 120
    a_minute: int = 30
    waiting: int = 64
    seconds: int = 60
    visitors: int = 10_000
    any_strength: bool = field(default_factory=any_strength)


class Rate:
    """Counts the calls of each address in the last minute."""

    def __init__(self, limits: Limits):
        self.limits, self.calls = limits, OrderedDict()

    def __call__(self, address: str) -> None:
        """Count a call. Raises `ValueError` if its address asks too often."""
        now, calls = time.monotonic(), self.calls.setdefault(address, deque())
        self.calls.move_to_end(address)
        while len(self.calls) > self.limits.visitors:
            self.calls.popitem(last=False)
        while calls and now - calls[0] > 60:
            calls.popleft()
        if len(calls) >= self.limits.a_minute:
            left = 60 - (now - calls[0])
            raise ValueError(f"{self.limits.a_minute} answers a minute are given: ask again in {left:.0f} seconds.")
        calls.append(now)


class CountCalls:
    """ASGI middleware that counts each call before it is read, queued or answered, for every function of the page. A
    call too many is answered in gradio's form for a refused input, because gradio's page and clients show its
    message."""

    def __init__(self, app, rate: Rate):
        self.app, self.rate = app, rate

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            try:
                self.rate((scope.get("client") or ("",))[0])
            except ValueError as error:
                detail = {"__type__": "validate", "is_valid": False, "message": str(error), "parameter_name": "prompt"}
                await JSONResponse({"detail": [detail]}, 422)(scope, receive, send)
                return
        await self.app(scope, receive, send)


class Page:
    """The functions that the blocks call.

    Args:
        steered: the model.
        repo: the files of its repo.
        examples: prompts to start from.
        tasks: tasks with tests, by prompt; their answers are run if there is a sandbox.
        sandbox: where tests run. With None nothing runs.
    """

    def __init__(
        self,
        steered: Steered,
        repo: SteeredRepo,
        examples: Sequence[str],
        tasks: dict[str, object] | None = None,
        sandbox: Sandbox | None = None,
        limits: Limits | None = None,
    ):
        self.steered, self.repo, self.examples = steered, repo, list(examples)
        self.tasks, self.sandbox, self.limits = tasks or {}, sandbox, limits or Limits()
        self.rate = Rate(self.limits)
        self.origins = origins_of(steered.model, repo)
        reach = 2.0 * abs(steered.alpha), 1.25 * max(safe_strengths(repo), default=0.0), 1.0
        self.largest = round(max(reach), 2) if self.limits.any_strength else repo.strengths_allowed().high or 1.0
        self.names = [f"{layer}.{head}" for layer, head in steered.heads]
        self.is_chat = bool(steered.tokenizer.chat_template)

    def asked(self, prompt: str, alpha: float, scope: str, heads: Sequence[str], system: str = "") -> Asked:
        """A visitor's inputs, checked. Raises `ValueError`, in words for a visitor, for what is not offered."""
        if scope not in ("all", "generated"):
            raise ValueError(f"The scope is {scope!r}; 'all' and 'generated' are offered.")
        alpha = check_alpha(alpha) + 0.0  # -0.0 is 0.0
        if not self.limits.any_strength:
            self.repo.strengths_allowed(scope=scope).check(alpha, f"The strength, in scope {scope!r},")
        unknown = [name for name in heads if name not in self.names]
        if unknown:
            raise ValueError(f"There is no head {unknown[0]!r} among the directions.")
        places = tuple(place for place, name in enumerate(self.names) if name in heads)
        system = (system or "").strip() or None
        self.steered.prompt_ids(prompt, system)
        limits = self.limits
        return Asked(prompt, alpha, scope, places, limits.max_new_tokens, limits.seconds, system)

    def answer(
        self,
        prompt: str,
        alpha: float,
        scope: str = "all",
        heads: list[str] | None = None,
        system: str = "",
    ) -> list[dict]:
        """The answers at minus alpha, 0 and alpha: [{"alpha": ..., "text": ..., "iti": what steered it}, ...]."""
        try:
            asked = self.asked(prompt, alpha, scope, self.names if heads is None else heads, system)
        except ValueError as error:
            raise gr.Error(str(error)) from None
        *_, last = self.steered.answers(asked)
        return [{"alpha": answer.alpha, "text": answer.text, FIELD: self.steering(asked, answer)} for answer in last]

    def steering(self, asked: Asked, answer: Answer) -> dict[str, dict]:
        """What steered an answer, see `Origin.say`, and with which heads, since a visitor may switch heads off."""
        strengths = self.steered.strengths(answer.alpha)
        said = {name: self.origins[name].say(strength, asked.scope) for name, strength in strengths.items()}
        said[self.steered.name]["heads"] = [self.names[place] for place in asked.heads]
        return said

    def show(self, prompt: str, alpha: float, scope: str, heads: list[str], system: str = ""):
        """Yield (minus, plain, plus, status, curve) for the page, as tokens come."""
        try:
            asked = self.asked(prompt, alpha, scope, heads, system)
        except ValueError as error:
            yield *[gr.skip()] * 3, f"**{error}**", gr.skip()
            return
        shown, begin = 0.0, inf
        for answers in self.steered.answers(asked):
            if begin == inf and answers[1].ids:  # it computes now, and is not in the queue
                begin = time.monotonic()
            if time.monotonic() - shown > 0.1:
                shown = time.monotonic()
                plain = answers[1]
                yield *(answer_html(answer, plain) for answer in answers), "Answering &hellip;", gr.skip()
        late = time.monotonic() - begin >= self.limits.seconds
        projections = self.steered.projections(asked, answers)
        verdicts = self.verdicts(prompt, answers)
        rows, heads = list(asked.heads), [self.steered.heads[place] for place in asked.heads]
        found = [each[rows] for each in projections]
        means = [each.mean(0) for each in found if each.numel()]
        full = max((float(mean.abs().max()) for mean in means), default=1.0)
        cells = [
            answer_html(answer, answers[1], heads, each, full, verdict)
            for answer, each, verdict in zip(answers, found, verdicts, strict=True)
        ]
        steps = [round(self.largest * i / 8, 3) for i in range(-8, 9)]
        lines = self.steered.curve(asked, answers[1:], steps)
        names = ("the plain answer", f"the answer at {asked.alpha:+g}")
        points = [
            {"alpha": step, "log-probability a token": value, "of": name}
            for name, line in zip(names, lines, strict=True)
            for step, value in zip(steps, line, strict=True)
        ]
        said = f"{len(rows)} of {len(self.names)} heads, scope {scope}. Underlined: what the plain answer lacks. "
        said += f"Full colour: {full:.2f} sigmas." if rows else "No head is on, so all three are plain."
        said += f" The answers end after {self.limits.seconds:g} seconds." if late else ""
        yield *cells, said, pd.DataFrame(points)

    def verdicts(self, prompt: str, answers) -> list[str]:
        """What the tests of a prompt say about each answer; "" for a prompt without tests."""
        task = self.tasks.get(prompt)
        if task is None:
            return [""] * len(answers)
        if self.sandbox is None:
            return ["not run: this machine has no sandbox"] * len(answers)
        bodies = [function_body(answer.text) for answer in answers]
        grades = grade([task] * len(answers), bodies, self.sandbox)
        tests = f"its {len(task.tests)} tests"
        return [f"{one.style}; {'passes' if one.correct else 'fails'} {tests}" for one in grades]

    def from_link(self, request: gr.Request):
        """(prompt, alpha, scope, heads, system) from the page's address. What is missing or wrong there is as
        shipped."""
        said = dict(request.query_params) if request is not None else {}
        try:
            alpha = float(said.get("alpha", "nan"))
        except ValueError:
            alpha = float("nan")
        alpha = alpha if 0 <= alpha <= self.largest else abs(self.steered.alpha)
        scope = said.get("scope") if said.get("scope") in ("all", "generated") else self.steered.scope
        heads = [name for name in said["heads"].split(",") if name in self.names] if "heads" in said else self.names
        prompt = said.get("prompt", self.examples[0] if self.examples else "")[:100_000]
        return prompt, alpha, scope, heads, said.get("system", "")[:100_000] if self.is_chat else ""

    def blocks(self) -> gr.Blocks:
        steered = self.steered
        title = f"{self.repo.base_title}: {self.repo.does or 'steered at inference time'}"
        with gr.Blocks(title=title, analytics_enabled=False) as blocks:
            gr.Markdown(
                f"# {title}\n\nOne prompt, three answers from one batch: steered away, left alone, and "
                "steered towards, by Inference-Time Intervention. Colour: each token's activations along the heads' "
                "directions, orange above the plain answer's mean, blue below it; hover for the head and the value."
                + (" This repo's gate is left out here: every prompt is steered." if steered.gated else "")
            )
            prompt = gr.Textbox(
                label="Question" if self.is_chat else "Prompt",
                lines=4,
                max_lines=16,
                max_length=20_000,
                elem_id="iti-prompt",
            )
            system = gr.Textbox(
                label="System message", lines=1, max_lines=4, max_length=20_000, elem_id="iti-system",
                visible=self.is_chat,
            )  # fmt: skip
            with gr.Row():
                with gr.Column():
                    alpha = gr.Slider(
                        0, self.largest, abs(steered.alpha), step=0.05, label="Strength (alpha)", elem_id="iti-alpha"
                    )
                    gr.HTML(scale_html(self.repo, self.largest))
                with gr.Column():
                    scope = gr.Radio(
                        ["all", "generated"],
                        value=steered.scope,
                        label="Scope: every position, or from the prompt's last token on",
                        elem_id="iti-scope",
                    )
            with gr.Accordion("Heads (layer.head): click to switch on and off", open=False):
                heads = gr.CheckboxGroup(
                    self.names, value=self.names, label="Heads", elem_id="iti-heads", show_select_all=True
                )
            go = gr.Button("Answer", variant="primary", elem_id="iti-go")
            status = gr.Markdown("", elem_id="iti-status")
            with gr.Row(elem_id="iti-answers"):
                cells = []
                for sign in SIGNS:
                    with gr.Column(min_width=280):
                        cells.append(gr.HTML("", elem_id=f"iti-{sign}"))
            plot = gr.LinePlot(
                x="alpha",
                y="log-probability a token",
                color="of",
                title="How likely the two answers are, at every strength",
                height=260,
                elem_id="iti-curve",
                sort="x",
                x_lim=[-self.largest, self.largest],
            )
            if self.examples:
                gr.Examples([[example] for example in self.examples], [prompt], label="Prompts to try")
            inputs, outputs = [prompt, alpha, scope, heads, system], [*cells, status, plot]
            call = {
                "fn": self.show,
                "inputs": inputs,
                "outputs": outputs,
                "js": TO_LINK % ",".join(self.names),
                "concurrency_id": "model",
                "concurrency_limit": 1,
                "trigger_mode": "always_last",
                "show_progress": "minimal",
                "api_visibility": "private",
            }
            go.click(**call)
            for changed in (alpha.release, scope.input, heads.input):
                changed(**call)
            loaded = blocks.load(self.from_link, None, inputs, api_visibility="private")
            loaded.then(**call)
            gr.api(self.answer, api_name="answer", concurrency_id="model", concurrency_limit=1)
        blocks.queue(max_size=self.limits.waiting, default_concurrency_limit=1)
        return blocks

    def launch(self, host: str | None = None, port: int | None = None, block: bool = True):
        """Serve the page. By default gradio chooses the host: this machine alone, or in a Space the whole web. Returns
        gradio's (app, local address, shared address)."""
        return self.blocks().launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=not block,
            share=False,
            quiet=not block,
            css=CSS + heads_css(self.steered.heads),
            show_error=True,
            max_file_size=1,
            enable_monitoring=False,
            ssr_mode=False,
            app_kwargs={"middleware": [Middleware(CountCalls, rate=self.rate)]},
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        )


TO_LINK = """(prompt, alpha, scope, heads, system) => {
    const link = new URL(window.location), all = "%s";
    document.getElementById("iti-status")?.setAttribute("aria-live", "polite");
    link.searchParams.set("prompt", prompt);
    link.searchParams.set("alpha", alpha);
    link.searchParams.set("scope", scope);
    const chosen = all.split(",").filter((name) => heads.includes(name)).join(",");
    if (chosen === all) { link.searchParams.delete("heads"); } else { link.searchParams.set("heads", chosen); }
    if (system) { link.searchParams.set("system", system); } else { link.searchParams.delete("system"); }
    window.history.replaceState(null, "", link);
    if (window.parent !== window) {
        window.parent.postMessage({queryString: link.search.slice(1), hash: ""}, "https://huggingface.co");
    }
    return [prompt, alpha, scope, heads, system];
}"""
"""Puts a visitor's inputs into the page's address, also if a Space shows the page inside its own."""
