"""The runs that docs/findings.md is made of: each leaves what the page tells of it in results/NAME-SEED.json.

    python benchmarks/findings/run.py words facts relations small forming
    python benchmarks/findings/run.py sst2 subjective trec agnews facts-qwen relations-qwen --qwen FOLDER

`words`, `facts` and `relations` are of SmolLM2-135M-Instruct, `small` and `forming` of icl-small. The others are of
Qwen2.5-Coder-0.5B-Instruct, on sentences that `staicc.py` writes into the folder `--data`. There `relations` finds
`parsed.conllu`, sentences of UD English-EWT, and `scierc.jsonl`, the development set of SciERC. `forming` finds there
what `icl-circuits train-small` made of seeds 2 and 3, the folders `seed2` and `seed3`. A run whose file is there is not
made again.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from icl_circuits.jobs import (
    DataSpec,
    DevelopmentJob,
    FactJob,
    FactSettings,
    Job,
    ModelSpec,
    RelationJob,
    RelationSettings,
    RelationSpec,
    Series,
    Settings,
)
from icl_circuits.report import read_results
from icl_circuits.stats import corrected_above_zero
from icl_circuits.store import Store
from icl_circuits.studies.biases import BIASES
from icl_circuits.studies.development import DEVELOPMENT
from icl_circuits.studies.in_context import IN_CONTEXT
from icl_circuits.studies.relations import RELATIONS
from icl_circuits.studies.running import run_job
from icl_circuits.studies.study import Study
from icl_circuits.studies.subvalues import SUBVALUES
from icl_circuits.studies.towers import TOWERS
from icl_circuits.subvalues import TARGET_MEASURES, NeuronEffects

RESULTS = Path(__file__).parent / "results"
IN_CONTEXT_PARTS = ("settings", "accuracy", "heads", "heads_scanned", "towers", "biases")
FORMING_TABLES = ("checkpoints", "co_timing")
FACT_TABLES = ("agreement_with_zeroing", "table_10_heads_on_their_own_type")


@dataclass(frozen=True)
class Asked:
    """What the command line says."""

    qwen: Path
    data: Path


@dataclass(frozen=True)
class Run:
    """A run that the page tells."""

    job: Callable[[Asked, int], Any]
    studies: tuple[Study, ...]
    parts: tuple[str, ...]
    """Of `results.json`."""
    tables: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)


def of_words(asked: Asked, seed: int) -> Job:
    """The package's own words."""
    return Job(ModelSpec(), DataSpec(), Settings(seed=seed))


def of_small_words(asked: Asked, seed: int) -> Job:
    """Words of the language that icl-small knows."""
    return Job(ModelSpec(model="icl-small"), DataSpec(), Settings(seed=seed, heads=4))


def of_training(asked: Asked, seed: int) -> DevelopmentJob:
    """The training of icl-small from three seeds."""
    return DevelopmentJob(Series(seeds=tuple(str(asked.data / f"seed{other}") for other in (2, 3))))


def of_sentences(name: str) -> Run:
    """A data set of sentences."""

    def job(asked: Asked, seed: int) -> Job:
        data = DataSpec(data=str(asked.data / f"{name}.csv"))
        return Job(ModelSpec(model=str(asked.qwen), dtype="bfloat16"), data, Settings(seed=seed, shots=2, prompts=24))

    return Run(job, (IN_CONTEXT, TOWERS), IN_CONTEXT_PARTS, seeds=(0, 1, 2))


def of_facts(per_type: int, model: Callable[[Asked], str]) -> Run:
    """Facts that a model knows, so many of each type."""

    def job(asked: Asked, seed: int) -> FactJob:
        return FactJob(ModelSpec(model=model(asked)), settings=FactSettings(per_type=per_type, seed=seed))

    return Run(job, (SUBVALUES,), ("facts", "subvalues"), FACT_TABLES)


def of_relations(texts: int, model: Callable[[Asked], str]) -> Run:
    """Parsed sentences and knowledge graphs, so many texts of each."""

    def job(asked: Asked, seed: int) -> RelationJob:
        data = RelationSpec(str(asked.data / "parsed.conllu"), str(asked.data / "scierc.jsonl"))
        return RelationJob(ModelSpec(model=model(asked)), data, RelationSettings(texts=texts, seed=seed))

    return Run(job, (RELATIONS,), ("families", "zeroed"), ("relations", "probe"))


def smollm2(asked: Asked) -> str:
    """The model of the package's tests."""
    return "smollm2-135m"


def qwen(asked: Asked) -> str:
    """A folder."""
    return str(asked.qwen)


RUNS = {
    "words": Run(of_words, (IN_CONTEXT, TOWERS, BIASES), IN_CONTEXT_PARTS, seeds=(0, 1, 2)),
    "small": Run(of_small_words, (IN_CONTEXT, TOWERS), IN_CONTEXT_PARTS, seeds=(0, 1, 2)),
    **{name: of_sentences(name) for name in ("sst2", "subjective", "trec", "agnews")},
    "facts": of_facts(25, smollm2),
    "facts-qwen": of_facts(8, qwen),
    "relations": of_relations(300, smollm2),
    "relations-qwen": of_relations(60, qwen),
    "forming": Run(of_training, (DEVELOPMENT,), ("emergence", "knock_out"), FORMING_TABLES),
}


def beside_the_first(methods: NeuronEffects) -> pd.DataFrame:
    """Whether zeroing another score's neurons costs more, or less, than the first score's, the paper's.

    p-values of the reciprocal rank, prompt by prompt, each corrected for all scores.
    """
    rank = methods.zeroed[:, :, TARGET_MEASURES.index("reciprocal_rank")]
    more, less = corrected_above_zero(rank[0] - rank[1:]), corrected_above_zero(rank[1:] - rank[0])
    return pd.DataFrame({"method": methods.groups[1:], "p_costs_more": more, "p_costs_less": less})


def told(run: Run, job: Any, store: Store | None) -> dict[str, Any]:
    """What the page tells of a run: parts of its `results.json`, and rows of its tables."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        run_job(job, run.studies, out, store=store)
        results = json.loads((out / "results.json").read_text(encoding="utf-8"))
        tables = {name: pd.read_csv(out / "tables" / f"{name}.csv") for name in run.tables}
        if SUBVALUES in run.studies:
            effects: NeuronEffects = read_results(out, SUBVALUES.body().kinds).values["methods"]
            tables["beside_the_first_score"] = beside_the_first(effects)
    found = {part: results[part] for part in run.parts if part in results}
    rows = {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
    return {"dtype": job.model.dtype} | found | rows


def main() -> None:
    """Make the runs that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=RUNS)
    parser.add_argument("--qwen", type=Path, default=Path("qwen"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--store", type=Path, help="keeps finished steps")
    given = parser.parse_args()
    asked, store = Asked(given.qwen, given.data), Store(given.store) if given.store else None
    RESULTS.mkdir(exist_ok=True)
    for name in given.names:
        for seed in RUNS[name].seeds:
            file = RESULTS / f"{name}-{seed}.json"
            if not file.exists():
                found = told(RUNS[name], RUNS[name].job(asked, seed), store)
                file.write_text(json.dumps({"data": name} | found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
