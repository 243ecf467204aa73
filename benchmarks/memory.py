"""Peak memory of log-likelihoods at a vocabulary of 128k, on a Llama so tiny that its weights do not matter.

    python benchmarks/memory.py [--rows 64] [--tokens 300]

For each kind of work it prints, in MiB, how much more a separate process takes at its peak than before the work, with
the model loaded. It also prints the size that all logits of those rows would have in float32; nothing makes them all.
"""

import argparse
import resource
import subprocess
import sys
import tempfile

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from iti_llama import ITIDirections, ITILlamaForCausalLM
from iti_llama.toolkit.data.labelled_set import Example
from iti_llama.toolkit.fit import causal
from iti_llama.toolkit.fit.positions import Policy
from iti_llama.toolkit.fit.record_activations import capture
from iti_llama.toolkit.measure.divergence import Text, measure_divergence
from iti_llama.toolkit.measure.score import Given, log_probabilities
from iti_llama.toolkit.truthfulqa.multiple_choice import Question, SharedPrefix, answer_scores


VOCABULARY = 128_256
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def tiny() -> tuple[ITILlamaForCausalLM, PreTrainedTokenizerFast]:
    """2 layers of 4 heads of 16, steered in one of them; one token a letter."""
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    directions = ITIDirections(
        heads=torch.tensor([[0, 1]]), directions=torch.eye(1, 16), sigma=torch.ones(1),
        num_hidden_layers=2, num_attention_heads=4, head_dim=16,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **shape)).save_pretrained(folder)
        model = ITILlamaForCausalLM.from_base(folder, directions).eval()
    words = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(LETTERS)}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return model, PreTrainedTokenizerFast(tokenizer_object=words)


def score(model, tokenizer, rows: int, text: str) -> None:
    log_probabilities(model, tokenizer, [Given("a", text, 1.0)] * rows)


def diverge(model, tokenizer, rows: int, text: str) -> None:
    measure_divergence(model, tokenizer, [Text("a", text, str(row)) for row in range(rows // 2)], [1.0])


def choose(model, tokenizer, rows: int, text: str) -> None:
    answer_scores(SharedPrefix(model), tokenizer, Question("a", (text,), (text,) * (rows // 2 - 1)), [0.0, 1.0])


def rank_by_cause(model, tokenizer, rows: int, text: str) -> None:
    bare = causal.bare_rows([Example("a", text, row % 2, str(row)) for row in range(rows)], tokenizer)
    offsets = torch.full((2, 4, 16), 0.1)
    causal.derivatives(model, bare, offsets, "all", 0)
    causal.measure_heads(model, bare, offsets, [1], [1.0], "all", 0)


def record(model, tokenizer, rows: int, text: str) -> None:
    capture(model, tokenizer, [Example("a", text, row % 2, str(row)) for row in range(rows)], Policy("last"))


WORK = {work.__name__: work for work in (score, diverge, choose, rank_by_cause, record)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--only", choices=WORK, help="do this work in this process, and print only the MiB")
    args = parser.parse_args()
    if args.only:
        model, tokenizer = tiny()
        log_probabilities(model, tokenizer, [Given("a", "b")])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        WORK[args.only](model, tokenizer, args.rows, (LETTERS * args.tokens)[: args.tokens])
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
        return
    logits = args.rows * args.tokens * VOCABULARY * 4 >> 20
    print(f"{args.rows} rows of {args.tokens} tokens, vocabulary {VOCABULARY:,}: all logits are {logits:,} MiB")
    for name in WORK:
        command = [sys.executable, __file__, "--only", name, "--rows", str(args.rows), "--tokens", str(args.tokens)]
        peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        print(f"  {name}: {int(peak):,} MiB")


if __name__ == "__main__":
    main()
