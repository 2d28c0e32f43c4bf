"""Writes docs/findings.md from the stored results of `run.py` and the text of `findings.md`, where tables have places.

python benchmarks/findings/page.py          # write the page
python benchmarks/findings/page.py --check  # say whether the page is what the results give
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import alone
import numpy as np
from wording import Number, measured, share, table, text

from icl_circuits.stats import ALPHA, student_interval

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "findings.md"
SETS = {
    "words": "word categories, pairs drawn for each prompt",
    "small": "made-up words, pairs of classes drawn for each prompt",
    "sst2": "SST-2: film reviews, positive or negative",
    "subjective": "Subj: sentences, objective or subjective",
    "trec": "TREC: questions, by what they ask for",
    "agnews": "AG News: news, of four topics",
}
"""In the order of the tables; all but the first two from the StaICC package."""
MODELS = {"words": "SmolLM2-135M-Instruct", "small": "icl-small"}
"""The others are of Qwen."""
Run = dict[str, Any]


def runs() -> dict[str, list[Run]]:
    """The stored runs of each data set, by seed."""
    found = {name: sorted((HERE / "results").glob(f"{name}-*.json")) for name in SETS}
    return {
        name: [json.loads(file.read_text(encoding="utf-8")) for file in files] for name, files in found.items() if files
    }


def over_seeds(values: Sequence[Number]) -> Number:
    """The mean over seeds: with Student's interval where there are several, else the one seed's own over prompts."""
    if len(values) == 1:
        return values[0]
    return student_interval(np.array([value[0] for value in values]))


def accuracy(run: Run, kind: str, label: str | None = None, gold: str | None = None, rule: str = "top1") -> Number:
    """The accuracy of one group of zeroed heads on the prompts of one answer, or on all."""
    (row,) = (
        row for row in run["accuracy"]["by_group"] if (row["kind"], row["label"], row["gold"]) == (kind, label, gold)
    )
    return measured(row, rule)


def has_group(run: Run, label: str) -> bool:
    """Whether any selected head serves the label."""
    return any(row["kind"] == "label" and row["label"] == label for row in run["accuracy"]["by_group"])


def difference(run: Run, kind: str, label: str | None = None, gold: str | None = None) -> float:
    """Accuracy with a group zeroed less that with its random control zeroed."""
    return accuracy(run, kind, label, gold)[0] - accuracy(run, "random", label, gold)[0]


def of_group(run: Run, group: str, measure: str) -> Number:
    """What the heads of a group do on average."""
    return measured(run["towers"][group], measure)


def verdict(differences: Sequence[float]) -> str:
    """What seeds say of one sign: `holds` where all agree and their interval leaves out 0."""
    if len(differences) < 2:
        return f"{differences[0]:+.2f} (one seed)"
    mean, low, high = over_seeds([(value, value, value) for value in differences])
    word = "holds" if high < 0 else "fails" if low > 0 else "not told apart"
    return f"{word}: {text((mean, low, high), '+.2f')}"


def lost(found: dict[str, list[Run]]) -> str:
    """What is lost without the heads."""
    rows = []
    for name, every in found.items():
        base, zeroed, random = (
            over_seeds([accuracy(run, kind) for run in every]) for kind in ("base", "all", "random")
        )
        heads = np.mean([len(run["heads"]) / run["heads_scanned"] for run in every])
        rows.append(
            (
                name,
                f"{heads:.1%}",
                share(base),
                share(zeroed),
                share(random),
                verdict([difference(run, "all") for run in every]),
            )
        )
    header = ("data", "heads zeroed", "nothing zeroed", "in-context heads", "random heads", "in-context less random")
    return table(header, rows)


def mirror(found: dict[str, list[Run]]) -> str:
    """The mirror image: heads of one label, on the prompts of each answer."""
    rows = []
    for name, every in found.items():
        for label, other in (("foo", "bar"), ("bar", "foo")):
            some = [run for run in every if has_group(run, label)]
            if some:
                own, others = ([difference(run, "label", label, gold) for run in some] for gold in (label, other))
                n = np.mean(
                    [
                        row["n_heads"]
                        for run in some
                        for row in run["accuracy"]["by_group"]
                        if (row["kind"], row["label"], row["gold"]) == ("label", label, None)
                    ]
                )
                rows.append(
                    (
                        name,
                        f"{label}heads ({n:.0f})",
                        *(f"{np.mean(x):+.2f} ({', '.join(f'{v:+.2f}' for v in x)})" for x in (own, others)),
                    )
                )
    return table(("data", "zeroed", "on its own label", "on the other label"), rows)


def towers(found: dict[str, list[Run]]) -> str:
    """Values and queries and keys, beside random heads."""
    rows = []
    for name, every in found.items():
        cells = [
            share(over_seeds([of_group(run, group, measure) for run in every]))
            for measure in ("ov_copying", "qk_auc")
            for group in ("in_context_heads", "random_heads")
        ]
        copying = np.mean([sum(head["ov_copying"] >= 0.98 for head in run["heads"]) for run in every])
        compare = np.mean([sum(head["qk_auc_p"] < ALPHA for head in run["heads"]) for run in every])
        heads = np.mean([len(run["heads"]) for run in every])
        rows.append((name, *cells[:2], f"{copying:.1f} of {heads:.0f}", *cells[2:], f"{compare:.1f} of {heads:.0f}"))
    header = (
        "data",
        "copying",
        "random heads",
        "copy everywhere",
        "class AUC",
        "random heads",
        f"compare (p < {ALPHA}, corrected)",
    )
    return table(header, rows)


def sure_heads(found: dict[str, list[Run]]) -> str:
    """The heads that every seed selects."""
    rows = []
    for name, every in found.items():
        chosen = [{(head["layer"], head["head"]) for head in run["heads"]} for run in every]
        common = sorted(set.intersection(*chosen))
        told = np.mean([np.mean([head["p_drop"] < ALPHA for head in run["heads"]]) for run in every])
        rows.append((name, str(len(every)), ", ".join(f"L{layer}H{head}" for layer, head in common), f"{told:.0%}"))
    return table(
        ("data", "seeds", "heads that every seed selects", "selected heads whose own loss is told from zero"), rows
    )


def best_comparing(found: dict[str, list[Run]]) -> str:
    """The heads that compare classes, after correction, in every seed."""
    told = []
    for name, every in found.items():
        chosen = [{(h["layer"], h["head"]) for h in run["heads"] if h["qk_auc_p"] < ALPHA} for run in every]
        common = sorted(set.intersection(*chosen))
        aucs: dict[tuple[int, int], list[float]] = {(h["layer"], h["head"]): [] for run in every for h in run["heads"]}
        for head in (head for run in every for head in run["heads"]):
            aucs[head["layer"], head["head"]].append(head["qk_auc"])
        if common:
            named = [f"L{layer}H{head} (AUC {np.mean(aucs[layer, head]):.2f})" for layer, head in common]
            told.append(f"{name}: {', '.join(named)}")
    return "; ".join(told) if told else "none"


def bias_rows(every: list[Run]) -> str:
    """Both biases, before and after, beside random heads treated alike."""
    rows = []
    for bias, name in (("majority", "majority label"), ("recency", "recency")):
        stored = [run["biases"][bias] for run in every]

        def of(key: str, stored: list[Any] = stored) -> Number:
            return over_seeds([measured(m, key) for m in stored])

        random = over_seeds(
            [
                (mean, mean, mean)
                for m in stored
                for mean in [
                    float(np.mean([r["reduction"] for r in m["random_heads"] if r["measure"] == m["measure"]]))
                ]
            ]
        )
        cost = over_seeds([(m["accuracy_after"] - m["accuracy_before"],) * 3 for m in stored])
        rows.append(
            (name, text(of("before")), text(of("after")), text(of("reduction")), text(random), text(cost, "+.2f"))
        )
    header = ("bias", "fluctuation before", "after", "reduction", "with random heads", "accuracy gained")
    return table(header, rows)


def settings_rows(found: dict[str, list[Run]]) -> str:
    """What was run."""
    rows = []
    for name, every in found.items():
        run = every[0]
        asked = run["settings"]
        rows.append(
            (
                name,
                SETS[name],
                MODELS.get(name, "Qwen2.5-Coder-0.5B-Instruct"),
                run["dtype"],
                str(asked["shots"]),
                str(asked["prompts"]),
                str(len(every)),
            )
        )
    header = ("", "data", "model", "weights", "demonstrations of each label", "test prompts a seed", "seeds")
    return table(header, rows)


def page() -> str:
    """The whole page."""
    found = runs()
    template = (HERE / "findings.md").read_text(encoding="utf-8")
    parts: dict[str, Callable[[], str]] = {
        "settings": lambda: settings_rows(found),
        "lost": lambda: lost(found),
        "sure": lambda: sure_heads(found),
        "mirror": lambda: mirror(found),
        "towers": lambda: towers(found),
        "comparing": lambda: best_comparing(found),
        "biases": lambda: bias_rows(found["words"]),
    }
    for name, part in {**parts, **alone.PARTS}.items():
        template = template.replace(f"{{{{ {name} }}}}", part())
    return template


def main() -> None:
    """Write the page, or compare it."""
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        sys.exit("docs/findings.md is not what the stored results give: run benchmarks/findings/page.py")


if __name__ == "__main__":
    main()
