"""The table of a fit for a model card."""

from ..foundation.intervals import Estimate


def gate_line(gate: dict) -> str:
    """What a gate does on test prompts, from its part of a report."""
    acts, fires = (Estimate(**gate[f"fires_on_label_{label}"]) for label in (1, 0))
    return (
        f"acts on {acts.percent()} of the {acts.n} test prompts that it is for, and on {fires.percent()} of the "
        f"{fires.n} others; AUC {gate['auc_test']:.3f} (of the words alone {gate['auc_test_of_words']:.3f})"
    )


def report_table(found: dict) -> str:
    """The table for a model card, from a report."""
    data, best, null = found["data"], found["heads"][0], found["null"]
    accuracy = Estimate(**found["top_head_test_accuracy"])
    layer = found["layers"]["best"]

    def rows(part: dict) -> str:
        return f"{part['rows']} ({part['label 1']} of label 1) in {part['groups']} groups"

    chance = "not computed"
    if null["draws"]:
        chance = f"{null['quantile_95']:.3f} ({len(null['draws'])} permutations; p = {null['p_top_head']:.3f})"
    table = {
        "training samples": rows(data["fitting"]),
        "test samples, no group shared with training": rows(data["test"]),
        "activations": f"input of o_proj, {found['policy']}",
        "heads": f"{found['top_k']} of {len(found['all_heads_auc']) * len(found['all_heads_auc'][0])}",
        "top head": f"layer {best['layer']}, head {best['head']}",
        "its AUC, out of fold": f"{best['auc']:.3f}",
        "best AUC of all heads under permuted labels, 95th percentile": chance,
        "p of the last head kept": "not computed" if null["p_last_head"] is None else f"{null['p_last_head']:.3f}",
        "overlap of the top heads between folds (Jaccard)": f"{found['stability']['value']:.2f}",
        "validation accuracy of the top head, out of fold": f"{100 * best['accuracy']:.1f}%",
        "test accuracy of the top head": f"{accuracy.percent()}, n = {accuracy.n}",
        "best single layer (residual stream)": f"{layer}: AUC {found['layers']['auc'][layer]:.3f}, "
        f"test accuracy {100 * found['layers']['test_accuracy'][layer]:.1f}%",
        "AUC of the text alone (TF-IDF, length)": f"{found['text_baseline_auc']:.3f}",
    }
    if "effect" in best:
        effect = f"top head {best['effect']:.2f} nats for each root of a nat of divergence"
        table["heads ranked by"] = f"what they do; {effect}"
    if "gate" in found:
        table["gate"] = gate_line(found["gate"])
    agreements = [head["agreement"] for head in found["heads"] if head.get("agreement") is not None]
    if agreements:
        mean = sum(agreements) / len(agreements)
        said = f"{best['agreement']:.2f} in the top head, {mean:.2f} on average over the heads kept"
        table["agreement of the pair differences (mean cosine)"] = said
    lines = ["| fit | |", "|---|---|", *(f"| {name} | {value} |" for name, value in table.items())]
    return "\n".join(lines)
