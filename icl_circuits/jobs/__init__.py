"""What to run, as plain values."""

from icl_circuits.jobs.job import (
    CircuitJob as CircuitJob,
    CircuitSettings as CircuitSettings,
    DataSpec as DataSpec,
    DevelopmentJob as DevelopmentJob,
    DevelopmentSettings as DevelopmentSettings,
    DevelopmentSpec as DevelopmentSpec,
    Dtype as Dtype,
    FactJob as FactJob,
    FactSettings as FactSettings,
    FactSpec as FactSpec,
    Job as Job,
    ModelSpec as ModelSpec,
    RelationJob as RelationJob,
    RelationSettings as RelationSettings,
    RelationSpec as RelationSpec,
    Series as Series,
    Settings as Settings,
)
