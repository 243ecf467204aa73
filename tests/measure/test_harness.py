"""lm-evaluation-harness on a steered model gives TruthfulQA's numbers as `multiple_choice` does, at every strength."""

import json
import textwrap

import pytest
import torch
from reference import hooks, tiny_tokenizer
from typer.testing import CliRunner


pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")

from lm_eval.api.instance import Instance

from iti_llama.toolkit.cli.app import app
from iti_llama.toolkit.measure.harness import ITILlamaLM, evaluate_at
from iti_llama.toolkit.truthfulqa.multiple_choice import Question, multiple_choice


QUESTIONS = [
    Question("What falls?", ("The rain.", "Snow."), ("The sun.", "A name, at times.")),
    Question("Is it so?", ("Yes.", "Of course it is."), ("No.",)),
    Question("Who reads this?", ("Nobody.",), ("All of them.", "The king of France.", "x.")),
    Question("How long is one?", ("One.", "As long as it is."), ("Two.", "Three and more.")),
]

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/{name}.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "Q: {{{{question}}}}\\nA:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: 0
metric_list: [{{metric: acc}}]
"""

MC2 = """
import numpy as np

def mc2(doc, results):
    odds = np.exp(np.array([score for score, _ in results]))
    return {"acc": odds[np.array(doc["labels"]) == 1].sum() / odds.sum()}
"""


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """A folder with MC1 and MC2 of the questions as tasks of the harness."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    (tmp_path / "shares.py").write_text(textwrap.dedent(MC2))
    for name, true in (("own_mc1", lambda question: question.true[:1]), ("own_mc2", lambda question: question.true)):
        rows = [
            {
                "question": question.text,
                "choices": [*true(question), *question.false],
                "labels": [1] * len(true(question)) + [0] * len(question.false),
            }
            for question in QUESTIONS
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        extra = "process_results: !function shares.mc2\n" if name == "own_mc2" else ""
        (tmp_path / f"{name}.yaml").write_text(TASK.format(name=name, folder=tmp_path).lstrip() + extra)
    return tmp_path


def test_mc1_and_mc2_are_ours_at_every_alpha(tiny, tokenizer, tasks):
    """At both scopes: an answer is shifted from its first token on, whatever the scope."""
    alphas = [0.7, -3.0]
    ours = multiple_choice(tiny, tokenizer, QUESTIONS, alphas)
    before = tiny.iti_alpha
    lm = ITILlamaLM(tiny, tokenizer=tokenizer, batch_size=3)
    found = evaluate_at(lm, ["own_mc1", "own_mc2"], [0.0, *alphas], str(tasks), bootstrap_iters=0)
    assert tiny.iti_alpha == before and list(found) == [0.0, *alphas]
    for own in ours:
        assert found[own.alpha]["own_mc1"]["acc,none"] == own.mc1.mean
        assert found[own.alpha]["own_mc2"]["acc,none"] == pytest.approx(own.mc2.mean, abs=1e-6)
    assert len({round(own.mc2.mean, 5) for own in ours}) == 3


@pytest.mark.parametrize("tiny", ["generated"], indirect=True)
def test_the_command_prints_every_strength_and_writes_what_the_harness_said(tiny, tasks):
    tiny.save_pretrained(tasks / "steered")
    tiny_tokenizer().save_pretrained(tasks / "steered")
    words = ["lm-eval", "--model", str(tasks / "steered"), "--tasks", "own_mc2", "--alphas", "0.7"]
    words += ["--include-path", str(tasks), "--device-map", "cpu", "--out", str(tasks / "said.json"), "--n", "3"]
    run = CliRunner().invoke(app, words, catch_exceptions=False)
    assert run.exit_code == 0 and "alpha 0.7" in run.output and "own_mc2" in run.output
    said = json.loads((tasks / "said.json").read_text())
    _, ours = multiple_choice(tiny, tiny_tokenizer(), QUESTIONS[:3], [0.7])
    assert said["results"]["0.7"]["own_mc2"]["acc,none"] == pytest.approx(ours.mc2.mean, abs=1e-6)
    words[words.index("own_mc2")] = "none_such"
    with pytest.raises(ValueError, match="--tasks none_such: the harness does not know it"):
        CliRunner().invoke(app, words, catch_exceptions=False)


def test_every_token_of_a_long_text_is_shifted_in_each_window_of_it(tiny, plain, tokenizer):
    """Windows of 16 tokens, the last one of 5 tokens after 12 that are repeated: against hooks on a plain Llama."""
    text = "return the sum of x and y, or of"
    lm = ITILlamaLM(tiny, iti_alpha=2.0, tokenizer=tokenizer, batch_size=2, max_length=16, add_bos_token=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] + [9] * 5
    windows = [([tokenizer.bos_token_id], ids[:16], 1), (ids[15:16], ids[16:32], 0), (ids[20:32], ids[32:37], 0)]
    expected = 0.0
    for context, scored, first in windows:
        with torch.no_grad(), hooks(plain, tiny.iti_directions, 2.0, slice(first, None)):
            logs = plain(torch.tensor([context + scored])).logits[0].double().log_softmax(-1)
        expected += logs[len(context) - 1 : -1].gather(1, torch.tensor(scored)[:, None]).sum().item()
    request = Instance("loglikelihood_rolling", {}, (text + tokenizer.decode([9] * 5),), 0)
    assert len(ids) == 37
    assert lm.loglikelihood_rolling([request], disable_tqdm=True) == [pytest.approx(expected, abs=1e-3)]


def test_a_tokenizer_without_pad_token_generates_and_stays_as_it_is(tiny):
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token, tokenizer.unk_token = None, None
    lm = ITILlamaLM(tiny, tokenizer=tokenizer, batch_size=3, add_bos_token=True)
    asked = [("def f(x):", {"until": ["!"], "max_gen_toks": 6}), ("a", {"until": ["!"], "max_gen_toks": 6})]
    requests = [Instance("generate_until", {}, arguments, 0) for arguments in asked]
    together = lm.generate_until(requests, disable_tqdm=True)
    assert together == [lm.generate_until([one], disable_tqdm=True)[0] for one in requests] and all(together)
    assert tokenizer.pad_token is None and len(tokenizer) == len(tiny_tokenizer())


def test_a_model_without_directions_and_a_batch_of_no_size_are_refused(tiny, tokenizer):
    with pytest.raises(ValueError, match="batch_size is 'auto'"):
        ITILlamaLM(tiny, tokenizer=tokenizer, batch_size="auto")
    tiny.set_iti_directions(None)
    with pytest.raises(ValueError, match="no directions"):
        ITILlamaLM(tiny, tokenizer=tokenizer)
