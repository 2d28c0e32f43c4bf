"""The study of which layers, heads and neurons write the answers to facts."""

from icl_circuits.jobs import FactJob
from icl_circuits.studies.study import Beginning, Study, body_of

FACT_PROMPTS = Beginning(FactJob, f"{__name__}.begun")
"""Facts that the model knows, or one prompt: the study takes a `FactsBegun`."""

SUBVALUES = Study(
    name="subvalues",
    help="Which layers, heads and neurons write the answers to facts, or to one prompt: scores, and zeroing them.",
    out="icl-subvalues",
    in_report=False,
    body=body_of(__name__),
    example='--prompt "The capital of France is" --answer Paris --out my-fact',
    steps=(
        "layers and heads",
        "value neurons",
        "query neurons",
        "zeroing neurons",
        "prompts to read",
        "eight methods",
        "sums over neurons",
        "heads of each type",
        "neurons one by one",
    ),
    begins=FACT_PROMPTS,
)
