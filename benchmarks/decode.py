"""Cost of the steering: prefill and decode of plain Llama, of this model, and of hooks, interleaved in one process.

    python benchmarks/decode.py                                         # a small shape, on CPU
    python benchmarks/decode.py --shape llama-3.1-8b --device cuda      # the 8B shape, random weights, bfloat16
    python benchmarks/decode.py --shape llama-3.1-8b --device cuda --compile
    python benchmarks/decode.py --shape smollm2 --rounds 0 --load       # counts and loading time alone, 30 layers

Prints exact counts (dispatched operations, syncs, graph breaks, recompiles over ten changes of alpha), then ratios to
plain Llama: the median over rounds and the range of the middle half. A second plain model, timed in the same rounds,
shows the noise; a ratio within the noise means nothing. `--load` also times loading from disk, for this shape and for
the bundled model.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time

import torch
import transformers
from peer_ways import called
from peers import Count, graph_breaks
from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

from iti_llama import ITIDirections, ITILlamaConfig, ITILlamaForCausalLM
from iti_llama.toolkit.foundation.package import ROOT


SHAPES = {
    "tiny": {
        "vocab_size": 2048,
        "hidden_size": 64,
        "intermediate_size": 112,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "small": {
        "vocab_size": 4096,
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
    },
    "smollm2": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
    "llama-3.1-8b": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}


def build(shape: dict, heads: int, device: str, dtype: torch.dtype, attention: str = "sdpa"):
    """Plain and steered models that share their weights, and the directions."""
    config = LlamaConfig(**shape, max_position_embeddings=8192)
    config._attn_implementation = attention
    torch.manual_seed(0)
    with torch.device(device):
        torch.set_default_dtype(dtype)
        plain = LlamaForCausalLM(config).eval()
        torch.set_default_dtype(torch.float32)
    kept = {key: value for key, value in config.to_dict().items() if key not in ("model_type", "architectures")}
    with torch.device("meta"):
        steered = ITILlamaForCausalLM(ITILlamaConfig(**kept, attn_implementation=attention))
    steered.load_state_dict(plain.state_dict(), assign=True)
    steered.model.rotary_emb = plain.model.rotary_emb
    steered.eval()
    layers, width = config.num_hidden_layers, config.num_attention_heads
    chosen = torch.randperm(layers * width)[: min(heads, layers * width)]
    head_dim = config.hidden_size // width
    directions = ITIDirections(
        heads=torch.stack([chosen // width, chosen % width], 1),
        directions=torch.nn.functional.normalize(torch.randn(len(chosen), head_dim), dim=-1),
        sigma=torch.full((len(chosen),), 0.1),
        num_hidden_layers=layers,
        num_attention_heads=width,
        head_dim=head_dim,
    )
    steered.set_iti_directions(directions)
    return plain, steered, directions


def add_hooks(model: LlamaForCausalLM, directions: ITIDirections):
    """Add hooks as a user would: one pre-hook a layer, on the input of o_proj, with a precomputed offset."""
    handles = []
    for layer, offset in directions.offsets().items():
        o_proj = model.model.layers[layer].self_attn.o_proj
        offset = offset.to(o_proj.weight.device, o_proj.weight.dtype)
        handles.append(o_proj.register_forward_pre_hook(lambda module, args, offset=offset: (args[0] + offset,)))
    return handles


@torch.no_grad()
def run(model, ids: torch.Tensor, steps: int, compiled, length: int) -> tuple[float, float]:
    """Seconds of one prefill and of one decode step, over a static cache."""
    device = ids.device
    sync = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    cache = StaticCache(config=model.config, max_cache_len=length + steps + 1)
    sync()
    begin = time.perf_counter()
    positions = torch.arange(length, device=device)[None]
    token = model(ids, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1).logits.argmax(
        -1
    )
    sync()
    prefill, begin = time.perf_counter() - begin, time.perf_counter()
    step = model if compiled is None else compiled  # a compiled model has no truth value
    for i in range(steps):
        positions = torch.full((1, 1), length + i, device=device)
        token = step(token, position_ids=positions, past_key_values=cache, use_cache=True).logits.argmax(-1).clone()
    sync()
    return prefill, (time.perf_counter() - begin) / steps


def counts(model, ids: torch.Tensor, **kwargs) -> dict[str, int]:
    with torch.no_grad():
        cache = model(ids, use_cache=True).past_key_values
        with Count() as count:
            model(ids[:, -1:], past_key_values=cache, use_cache=True, **kwargs)
    return {"operations": count.operations, "syncs": count.syncs}


def summary(ratios: list[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(ratios, n=4)
    return {"median": round(median, 4), "from": round(low, 4), "to": round(high, 4), "rounds": len(ratios)}


@torch.no_grad()
def recompiles(steered: ITILlamaForCausalLM, ids: torch.Tensor, changes: int = 10) -> list[bool]:
    """For each change of alpha, whether it compiles the pass again, after the first pass has compiled it."""
    graphs, compiled = [], []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    forward, before = torch.compile(steered, backend=backend, fullgraph=True), steered.iti_alpha
    forward(ids, use_cache=False)
    for change in range(changes):
        held, steered.iti_alpha = len(graphs), 0.1 + change / 10
        forward(ids, use_cache=False)
        compiled.append(len(graphs) > held)
    steered.iti_alpha = before
    torch._dynamo.reset()
    return compiled


def load_times(plain, steered, rounds: int, device: str) -> dict[str, float]:
    """The time to load the steered model from disk, as a ratio to that of the plain one; the two alternate."""
    with tempfile.TemporaryDirectory() as folder:
        plain.save_pretrained(f"{folder}/plain")
        steered.save_pretrained(f"{folder}/steered")
        ratios = []
        for _ in range(rounds + 1):
            seconds = {}
            for name, cls in (("plain", LlamaForCausalLM), ("steered", ITILlamaForCausalLM)):
                begin = time.perf_counter()
                cls.from_pretrained(f"{folder}/{name}", dtype="auto", device_map=device)
                if device == "cuda":
                    torch.cuda.synchronize()
                seconds[name] = time.perf_counter() - begin
            ratios.append(seconds["steered"] / seconds["plain"])
    return summary(ratios[1:])  # the first round warms the disk's cache


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default=None, help="bfloat16 on cuda, float32 on cpu by default")
    parser.add_argument("--heads", type=int, default=48)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--prompt", type=int, default=256, help="tokens of the prompt")
    parser.add_argument("--steps", type=int, default=16, help="decode steps a round")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--attention", default="sdpa", help="sdpa, eager, flash_attention_2")
    parser.add_argument("--compile", action="store_true", help="torch.compile the decode step")
    parser.add_argument("--load", action="store_true", help="time loading too")
    parser.add_argument("--no-counts", dest="counts", action="store_false", help="only times")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    dtype = getattr(torch, arguments.dtype or ("bfloat16" if arguments.device == "cuda" else "float32"))
    plain, steered, directions = build(
        SHAPES[arguments.shape], arguments.heads, arguments.device, dtype, arguments.attention
    )

    where = torch.cuda.get_device_name() if arguments.device == "cuda" else platform.processor() or "cpu"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, {where}, {dtype}"
    result = {"shape": arguments.shape, "versions": versions, "compiled": arguments.compile}
    result["attention"] = arguments.attention
    result["steered_layers"] = len(directions.offsets())
    if arguments.counts:
        short = torch.randint(0, plain.config.vocab_size, (2, 8), device=arguments.device)
        alphas = torch.tensor([0.5, 1.0], device=arguments.device, dtype=dtype)
        result["counts"] = {"plain": counts(plain, short), "steered": counts(steered, short)}
        result["counts"]["steered, alpha per row"] = counts(steered, short, iti_alpha=alphas)
        handles = add_hooks(plain, directions)
        result["counts"]["hooks"] = counts(plain, short)
        for handle in handles:
            handle.remove()
        both = {"plain": plain, "steered": steered}
        result["graph_breaks"] = {n: graph_breaks(called(model)["forward"], short) for n, model in both.items()}
        result["recompiles"] = recompiles(steered, short)

    def compiled(model):
        return torch.compile(model, mode="reduce-overhead", fullgraph=True) if arguments.compile else None

    steps = {"plain": compiled(plain), "steered": compiled(steered), "plain again": compiled(plain)}
    result["ratios"] = {}
    for batch in arguments.batch if arguments.rounds else ():
        ids = torch.randint(0, plain.config.vocab_size, (batch, arguments.prompt), device=arguments.device)
        seconds: dict[str, list] = {name: [] for name in ("plain", "steered", "hooks", "plain again")}
        for _ in range(arguments.rounds + 2):
            for name in seconds:
                if name == "hooks" and arguments.compile:
                    continue
                model = steered if name == "steered" else plain
                handles = add_hooks(plain, directions) if name == "hooks" else []
                seconds[name].append(run(model, ids, arguments.steps, steps.get(name), arguments.prompt))
                for handle in handles:
                    handle.remove()
        for name in ("steered", "hooks", "plain again"):
            for i, phase in enumerate(("prefill", "decode")):
                pairs = list(zip(seconds["plain"], seconds[name], strict=bool(seconds[name])))[2:]
                if pairs:  # throughput, so that more than 1 is faster than plain
                    result["ratios"][f"batch {batch}, {phase}, {name}"] = summary(
                        [p[i] / other[i] for p, other in pairs]
                    )
    if arguments.load:
        bundled = ITILlamaForCausalLM.from_pretrained(ROOT)
        pairs = {arguments.shape: (plain, steered), "bundled model": (bundled.merge_and_unload(), bundled)}
        rounds = max(8, arguments.rounds // 3)
        result["load_time"] = {name: load_times(*pair, rounds, arguments.device) for name, pair in pairs.items()}

    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    print(
        f"{arguments.shape}: {result['steered_layers']} of {plain.config.num_hidden_layers} layers steered; {versions}"
    )
    for name, count in result.get("counts", {}).items():
        print(f"  a decode step, {name}: {count['operations']} operations, {count['syncs']} syncs")
    if arguments.counts:
        print(f"  graph breaks: {result['graph_breaks']}")
        changes, again = (
            len(result["recompiles"]),
            [place + 1 for place, new in enumerate(result["recompiles"]) if new],
        )
        print(f"  {changes} changes of alpha compile again at: {again or 'none'}")
    if result["ratios"]:
        print("throughput relative to plain Llama, median (middle half of the rounds):")
    for name, ratio in result["ratios"].items():
        print(f"  {name}: {ratio['median']:.3f} ({ratio['from']:.3f} to {ratio['to']:.3f}, {ratio['rounds']} rounds)")
    if arguments.load:
        for name, ratio in result["load_time"].items():
            middle = f"{ratio['from']:.3f} to {ratio['to']:.3f}, {ratio['rounds']} rounds"
            print(f"load time relative to plain, {name}: {ratio['median']:.3f} ({middle})")


if __name__ == "__main__":
    main()
