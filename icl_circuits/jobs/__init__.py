"""What to run, as plain values."""

from icl_circuits.jobs.job import (
    DataSpec as DataSpec,
    Dtype as Dtype,
    FactJob as FactJob,
    FactSettings as FactSettings,
    FactSpec as FactSpec,
    Job as Job,
    ModelSpec as ModelSpec,
    Settings as Settings,
)
