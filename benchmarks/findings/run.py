"""The runs that docs/findings.md is made of: each leaves what the page tells of it in results/NAME-SEED.json.

    python benchmarks/findings/run.py words
    python benchmarks/findings/run.py sst2 subjective trec agnews --qwen FOLDER --data data

`words` is SmolLM2-135M-Instruct on the package's own words. The others are Qwen2.5-Coder-0.5B-Instruct on sentences
that `staicc.py` writes. A run whose file is there is not made again.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from icl_circuits.jobs import DataSpec, Job, ModelSpec, Settings
from icl_circuits.studies.biases import BIASES
from icl_circuits.studies.in_context import IN_CONTEXT
from icl_circuits.studies.running import run_job
from icl_circuits.studies.towers import TOWERS

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1, 2)
SENTENCES = ("sst2", "subjective", "trec", "agnews")
TOLD = ("settings", "accuracy", "heads", "heads_scanned", "towers", "biases")
"""The parts of `results.json` that the page tells."""


def job_of(name: str, seed: int, qwen: Path, data: Path) -> Job:
    """One run."""
    if name == "words":
        return Job(ModelSpec(), DataSpec(), Settings(seed=seed))
    model = ModelSpec(model=str(qwen), dtype="bfloat16")
    return Job(model, DataSpec(data=str(data / f"{name}.csv")), Settings(seed=seed, shots=2, prompts=24))


def run(name: str, seed: int, qwen: Path, data: Path) -> dict[str, Any]:
    """The told parts of one run's `results.json`."""
    job = job_of(name, seed, qwen, data)
    studies = (IN_CONTEXT, TOWERS, BIASES) if name == "words" else (IN_CONTEXT, TOWERS)
    with tempfile.TemporaryDirectory() as folder:
        run_job(job, studies, Path(folder) / "out")
        results = json.loads((Path(folder) / "out" / "results.json").read_text(encoding="utf-8"))
    where = results["provenance"]
    told = {part: results[part] for part in TOLD if part in results}
    return {"model": where["name"], "data": name, "dtype": job.model.dtype} | told


def main() -> None:
    """Make the runs that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=("words", *SENTENCES))
    parser.add_argument("--qwen", type=Path, default=Path("qwen"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    asked = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    for seed in SEEDS:
        for name in asked.names:
            file = RESULTS / f"{name}-{seed}.json"
            if not file.exists():
                found = run(name, seed, asked.qwen, asked.data)
                file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
