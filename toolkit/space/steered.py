"""What the page asks of a model: answers at three strengths in one batch, where heads read the behaviour, a curve."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from iti_llama import ITILlamaForCausalLM

from ..foundation.strengths import ungated
from ..foundation.tokenize import chat_prompt, prompt_ids
from ..measure.score import score_tokens


SIGNS = ("minus", "plain", "plus")


@dataclass(frozen=True)
class Asked:
    """What one visitor asks for. heads: the places in `Steered.heads` that are switched on. seconds: the time after
    which an answer is cut off. system: the system message of a chat model, or None."""

    prompt: str
    alpha: float
    scope: str
    heads: tuple[int, ...]
    max_new_tokens: int = 120
    seconds: float = 60
    system: str | None = None


@dataclass(frozen=True)
class Answer:
    """alpha: its strength. ids: its tokens, without special ones. tokens: the texts of these."""

    alpha: float
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    text: str


class Steered:
    """A model that many visitors share. Every call carries its own strength, heads and scope, and no call sees
    another's. One call computes at a time. A gate is left out, so an answer that is called steered is steered.

    Besides its default directions, the model gets one behaviour for each of their heads, so that a call can use only
    some heads. All of them together give the same sum of shifts.

    Args:
        model: a steered model; it belongs to this object from now on.
        tokenizer: its tokenizer.
        max_prompt_tokens: the longest prompt that is answered.
    """

    def __init__(self, model: ITILlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, max_prompt_tokens: int = 512):
        if model.iti_directions is None:
            raise ValueError(f"{model.name_or_path} is not steered: it has no directions")
        self.model, self.tokenizer = model.eval(), tokenizer
        self.directions = model.iti_directions.top(model.iti_top_k)
        self.heads = [tuple(head) for head in self.directions.heads.tolist()]
        self.alpha, self.scope = float(model.iti_alpha), model.iti_scope
        self.gated = bool(ungated(model))
        self.longest = min(max_prompt_tokens, model.config.max_position_embeddings - 16)
        self.name, *others = model.iti_strengths
        self._others = {name: model.iti_strengths[name] for name in others}
        self._own = [f"page_head_{place}" for place in range(len(self.heads))]
        self._lock = threading.Lock()
        for place, name in enumerate(self._own):
            model.set_iti_behaviour(name, self._head(place), alpha=0.0)

    def _head(self, place: int):
        kept = ("heads", "directions", "sigma", "scores", "weights")
        rows = {name: getattr(self.directions, name) for name in kept}
        rows = {name: tensor[place : place + 1] for name, tensor in rows.items() if tensor is not None}
        silent = "weights" in rows and not rows["weights"].any()
        if silent:  # a weight of 0 means no shift, but weights that are all 0 are not allowed
            rows |= {"weights": torch.ones(1), "sigma": torch.zeros(1)}
        return replace(self.directions, gate=None, **rows)

    def strengths(self, alpha: float) -> dict[str, float]:
        """The strength of each of the model's behaviours in an answer at `alpha`."""
        return {self.name: alpha} | {name: other if alpha else 0.0 for name, other in self._others.items()}

    def _strengths(self, alphas: Sequence[float], heads: Sequence[int]) -> dict[str, torch.Tensor]:
        """The `iti_alpha` of a call whose rows have these strengths. A row at 0 is plain."""
        rows = torch.tensor([float(alpha) for alpha in alphas])
        whole = len(set(heads)) == len(self.heads)
        found = {"default": rows * whole}
        found |= {name: rows * (not whole and place in heads) for place, name in enumerate(self._own)}
        return found | {name: alpha * (rows != 0) for name, alpha in self._others.items()}

    @contextlib.contextmanager
    def _alone(self, scope: str):
        with self._lock:
            before, self.model.iti_scope = self.model.iti_scope, scope
            try:
                yield self.model
            finally:
                self.model.iti_scope = before

    def prompt_ids(self, prompt: str, system: str | None = None) -> list[int]:
        """The tokens of a visitor's prompt, inside the model's chat template if it has one. Raises `ValueError`, in
        words for a visitor, if the prompt is empty or too long, or the system message cannot be used."""
        if not prompt.strip():
            raise ValueError("The prompt is empty: write something for the model to go on from.")
        length = len(prompt) + len(system or "")
        if length > 32 * self.longest:  # before it is tokenized
            raise ValueError(f"The prompt has {length:,} characters; at most {self.longest} tokens are answered.")
        ids = prompt_ids(self.tokenizer, chat_prompt(self.tokenizer, prompt, "The prompt", system))
        if len(ids) > self.longest:
            raise ValueError(f"The prompt has {len(ids):,} tokens; at most {self.longest} are answered.")
        return ids

    def answers(self, asked: Asked) -> Iterator[list[Answer]]:
        """The greedy answers at minus alpha, 0 and alpha, from one batched call. They are yielded again as tokens
        come, and the last ones are complete. The computing stops when the caller stops listening."""
        ids = self.prompt_ids(asked.prompt, asked.system)
        alphas = (-asked.alpha, 0.0, asked.alpha)
        room = min(asked.max_new_tokens, self.model.config.max_position_embeddings - len(ids))
        inputs = torch.tensor([ids] * len(alphas), device=self.model.get_input_embeddings().weight.device)
        queue, stopped = _Steps(), threading.Event()

        def compute() -> None:
            try:
                with self._alone(asked.scope) as model:  # inside the thread, so that a caller who left blocks nobody
                    model.generate(
                        input_ids=inputs,
                        attention_mask=torch.ones_like(inputs),
                        do_sample=False,
                        max_new_tokens=room,
                        max_time=asked.seconds,
                        iti_alpha=self._strengths(alphas, asked.heads),
                        streamer=queue,
                        stopping_criteria=[_Stopped(stopped)],
                        **ungated(model),
                    )
                queue.steps.put(None)
            except BaseException as error:  # raised again for the caller
                queue.steps.put(error)

        thread = threading.Thread(target=compute, daemon=True)
        thread.start()
        try:
            rows = [_Row(self.tokenizer, alpha) for alpha in alphas]
            yield [row.answer() for row in rows]
            while (step := queue.steps.get()) is not None:
                if isinstance(step, BaseException):
                    raise step
                for row, token in zip(rows, step, strict=True):
                    row.append(token)
                yield [row.answer() for row in rows]
            yield [row.answer(complete=True) for row in rows]
        finally:
            stopped.set()
            thread.join()

    @torch.no_grad()
    def projections(self, asked: Asked, answers: Sequence[Answer]) -> list[torch.Tensor]:
        """Where heads read the behaviour: [heads, tokens] for each answer. A value is a token's activation at a head,
        projected on the head's direction, in sigmas from the mean over the plain answer. The activation is taken where
        the directions were read, without the shift."""
        ids, device = self.prompt_ids(asked.prompt, asked.system), self.model.get_input_embeddings().weight.device
        wanted: dict[int, list[int]] = {}
        for place, (layer, _) in enumerate(self.heads):
            wanted.setdefault(layer, []).append(place)
        found = []
        with self._alone(asked.scope) as model:
            for answer in answers:
                rows = torch.zeros(len(self.heads), len(answer.ids))
                if not answer.ids:
                    found.append(rows)
                    continue

                def read(layer: int, heads: torch.Tensor, rows=rows) -> None:
                    if layer not in wanted:
                        return
                    at_site = heads[0, -rows.shape[1] :]
                    if self.directions.site == "residual":
                        at_site = model.model.layers[layer].self_attn.o_proj(at_site)
                    at_site = at_site.float().unflatten(-1, (-1, self.directions.head_dim))
                    for place in wanted[layer]:
                        theta = self.directions.directions[place].to(at_site.device)
                        rows[place] = (at_site[:, self.heads[place][1]] @ theta).cpu()

                inputs = torch.tensor([[*ids, *answer.ids]], device=device)
                start = {"iti_start": len(ids) - 1} if asked.scope == "generated" else {}
                alpha = self._strengths([answer.alpha], asked.heads)
                model.model(
                    input_ids=inputs, iti_alpha=alpha, iti_record=read, use_cache=False, **start, **ungated(model)
                )
                found.append(rows)
        plain = next((rows for rows, answer in zip(found, answers, strict=True) if answer.alpha == 0), found[0])
        centre = plain.mean(-1, keepdim=True) if plain.shape[1] else torch.zeros(len(self.heads), 1)
        return [(rows - centre) / self.directions.sigma[:, None].clamp_min(1e-6) for rows in found]

    def curve(self, asked: Asked, answers: Sequence[Answer], alphas: Sequence[float]) -> list[list[float]]:
        """Each answer's mean log-probability per token after the prompt, at each of `alphas`."""
        ids = self.prompt_ids(asked.prompt, asked.system)
        rows = [(ids, answer.ids, alpha) for answer in answers for alpha in alphas]
        starts = [len(ids) - 1] * len(rows) if asked.scope == "generated" else None
        with self._alone(asked.scope) as model:
            scored = score_tokens(
                model,
                [(prompt, completion) for prompt, completion, _ in rows],
                [alpha for *_, alpha in rows],
                starts,
                strengths_of=lambda alphas: self._strengths(alphas, asked.heads),
            )
        means = [one.log_probability / max(1, len(row[1])) for one, row in zip(scored, rows, strict=True)]
        return [means[at : at + len(alphas)] for at in range(0, len(means), len(alphas))]


class _Row:
    """One answer while it grows."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, alpha: float):
        self.tokenizer, self.alpha, self.special = tokenizer, alpha, set(tokenizer.all_special_ids)
        self.ids, self.tokens, self.text, self.ended = [], [], "", False

    def append(self, token: int) -> None:
        self.ended = self.ended or token in self.special
        if not self.ended:
            self.ids.append(token)
            said = self.tokenizer.decode(self.ids, skip_special_tokens=False).rstrip("\N{REPLACEMENT CHARACTER}")
            self.tokens.append(said[len(self.text) :])  # a character of several tokens goes to the last
            self.text = said

    def answer(self, complete: bool = False) -> Answer:
        if complete and self.ids:
            whole = self.tokenizer.decode(self.ids, skip_special_tokens=False)
            self.tokens[-1] += whole[len(self.text) :]
            self.text = whole
        return Answer(self.alpha, tuple(self.ids), tuple(self.tokens), self.text)


class _Steps(BaseStreamer):
    """A queue of the new tokens of all rows: one list for each step."""

    def __init__(self):
        self.steps: SimpleQueue = SimpleQueue()
        self._prompt = True

    def put(self, value: torch.Tensor) -> None:
        if not self._prompt:
            self.steps.put(value.reshape(-1).tolist())
        self._prompt = False

    def end(self) -> None:
        pass


class _Stopped(StoppingCriteria):
    def __init__(self, stopped: threading.Event):
        self.stopped = stopped

    def __call__(self, input_ids: torch.Tensor, scores, **kwargs) -> torch.Tensor:
        return torch.full((len(input_ids),), self.stopped.is_set(), device=input_ids.device)
