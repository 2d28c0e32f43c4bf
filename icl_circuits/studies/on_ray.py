"""The tasks of a grid on a Ray cluster: each study of each job is a task of Ray's, and the store is where they meet.

A worker that is lost loses the step it was computing. Ray runs its task again elsewhere, from the store on.
"""

import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from icl_circuits.errors import InputError
from icl_circuits.jobs import ModelSpec
from icl_circuits.progress import say
from icl_circuits.store import Store
from icl_circuits.studies.batch import Done, Task, begin, prepare, run_task
from icl_circuits.studies.loading import Loaded
from icl_circuits.studies.running import run_studies
from icl_circuits.studies.study import Study

TRIES = 5
"""How often a task is begun again when its worker is lost."""


def run_on_ray(tasks: Sequence[Task], store: Store, address: str | None = None) -> Iterator[Done]:
    """Run the tasks on a cluster, in any order.

    Args:
        tasks: what to run.
        store: on a file system that all nodes share.
        address: of the cluster; None: one is started on this machine.

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """
    ray = _connected(address)
    gpus = 1 if ray.cluster_resources().get("GPU") else 0
    remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=TRIES)
    common = (str(store.folder), torch.get_num_threads())
    begun, ended, names, done = remote(_begin), remote(_run), dict[Any, str](), dict[Any, Task]()
    for task in tasks:
        first = begun.remote(task, *common)
        names[first] = f"{task}: beginning"
        parts = []
        for study in task.studies:
            parts.append(remote(_study).remote(task, study, *common, first))
            names[parts[-1]] = f"{task}: {study.name}"
        last = ended.remote(task, *common, *parts)
        names[last], done[last] = f"{task}: numbers", task
    waiting, total = list(names), len(names)
    while waiting:
        (found, *_), waiting = ray.wait(waiting)
        say(f"{total - len(waiting)} of {total} tasks: {names[found]}")
        if found in done:
            yield ray.get(found)


def _connected(address: str | None) -> Any:
    try:
        import ray
    except ImportError as error:
        raise InputError("--engine ray needs Ray: run `pip install 'icl_circuits[distributed]'`") from error
    if not ray.is_initialized():
        try:
            ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"no Ray cluster at {address!r} ({error}): start one with `ray start --head`") from error
    return ray


def _begin(task: Task, folder: str, threads: int) -> str:
    """Compute what all studies of the task begin with. Gives why that cannot be, if it cannot."""
    torch.set_num_threads(threads)
    try:
        store = Store(Path(folder))
        begin(task, _model(task.job.model, folder), prepare(task), store)
    except InputError as error:
        return str(error)
    return ""


def _study(task: Task, study: Study, folder: str, threads: int, why_not: str) -> str:
    """Compute the steps of one study."""
    torch.set_num_threads(threads)
    if why_not:
        return why_not
    try:
        store = Store(Path(folder))
        run_studies(begin(task, _model(task.job.model, folder), prepare(task), store), [study])
    except InputError as error:
        return str(error)
    return ""


def _run(task: Task, folder: str, threads: int, *_: str) -> Done:
    """The numbers of a task whose steps are in the store."""
    torch.set_num_threads(threads)
    return run_task(task, Store(Path(folder)))


@lru_cache(maxsize=1)
def _model(spec: ModelSpec, folder: str) -> Any:
    """The model that a worker used last, which is most often the one it needs next."""
    return Loaded(spec, Store(Path(folder))).model
