"""What to run, as plain values."""

from icl_circuits.jobs.job import DataSpec, Dtype, Job, ModelSpec, Settings

__all__ = ["DataSpec", "Dtype", "Job", "ModelSpec", "Settings"]
