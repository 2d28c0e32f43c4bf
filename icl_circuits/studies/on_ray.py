"""The tasks of a grid on a Ray cluster: each study of each job is a task of Ray's, and the store is where they meet.

A worker that is lost loses the step it was computing. Ray runs its task again elsewhere, from the store on.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from icl_circuits.errors import InputError
from icl_circuits.jobs import ModelSpec
from icl_circuits.progress import say
from icl_circuits.store import Store, code_version
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
    threads = torch.get_num_threads()
    has_gpus = bool(ray.cluster_resources().get("GPU"))
    common = (str(store.folder), threads, code_version())
    names, done = dict[Any, str](), dict[Any, Task]()
    for task in tasks:
        gpus = int(has_gpus and task.job.model.device != "cpu")
        remote = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=TRIES)
        first = remote(_steps).remote(task, (), *common)
        names[first] = f"{task}: beginning"
        parts = []
        for study in task.studies:
            parts.append(remote(_steps).remote(task, (study,), *common, first))
            names[parts[-1]] = f"{task}: {study.name}"
        last = remote(_end).remote(task, *common, *parts)
        names[last], done[last] = f"{task}: numbers", task
    waiting, total = list(names), len(names)
    while waiting:
        (found, *_), waiting = ray.wait(waiting)
        say(f"{total - len(waiting)} of {total} tasks: {names[found]}")
        if found in done:
            yield replace(ray.get(found), task=done[found])


def _connected(address: str | None) -> Any:
    try:
        import ray
    except ImportError as error:
        raise InputError("--engine ray needs Ray: run `pip install 'icl_circuits[distributed]'`") from error
    if not ray.is_initialized():
        try:
            ray.init(
                address=address or "local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"no Ray cluster at {address!r} ({error}): start one with `ray start --head`") from error
    return ray


@contextmanager
def _as_the_driver(threads: int, code: str) -> Iterator[None]:
    """Compute as the driver does: its code, and as many threads, since sums depend on them."""
    if code != code_version():
        raise InputError("this node has other code than the one that asks: install the same versions on all nodes")
    torch.set_num_threads(threads)
    with threadpool_limits(threads):
        yield


def _steps(task: Task, studies: Sequence[Study], folder: str, threads: int, code: str, why_not: str = "") -> str:
    """Compute what all studies of a task begin with, and some of them. Gives why that cannot be, if it cannot."""
    if why_not:
        return why_not
    try:
        with _as_the_driver(threads, code):
            loaded = _loaded(task.job.model, folder)
            run_studies(begin(task, loaded.model, prepare(task), Store(Path(folder))), studies, report=task.studies)
    except InputError as error:
        return str(error)
    return ""


def _end(task: Task, folder: str, threads: int, code: str, *_: str) -> Done:
    """The numbers of a task whose steps are in the store."""
    try:
        with _as_the_driver(threads, code):
            return run_task(task, Store(Path(folder)), _loaded(task.job.model, folder))
    except InputError as error:
        return Done(task, {}, str(error))


@lru_cache(maxsize=1)
def _loaded(spec: ModelSpec, folder: str) -> Loaded:
    """The model that a worker used last, which is most often the one it needs next."""
    return Loaded(spec, Store(Path(folder)))
