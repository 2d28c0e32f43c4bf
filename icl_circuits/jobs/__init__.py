"""What to run, as plain values."""

from icl_circuits.jobs.job import DataSpec, Job, ModelSpec, Settings

__all__ = ["DataSpec", "Job", "ModelSpec", "Settings"]
