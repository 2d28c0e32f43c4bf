"""The jobs of a grid on a Ray cluster: each step is a task of Ray's, and the store is where steps meet.

Studies of one job go side by side. A worker that is lost loses the step it was computing; Ray computes it elsewhere.
"""

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from icl_circuits.costs import Cost
from icl_circuits.errors import InputError
from icl_circuits.jobs import ModelSpec
from icl_circuits.progress import say
from icl_circuits.store import Store, code_version
from icl_circuits.studies.batch import Done, Task, begin, first_steps, prepare, run_task
from icl_circuits.studies.loading import Loaded
from icl_circuits.studies.running import run_studies
from icl_circuits.studies.study import Study

TRIES = 5
"""How often a task is begun again when its worker is lost."""


class _StepKept(Exception):  # noqa: N818 - no error
    """Ends a task: its step was computed, and is in the store."""


class _ForOneStep(Store):
    """A store that ends the task once a step was computed."""

    def put(self, key: str, value: Any, cost: Cost, about: Mapping[str, str]) -> None:
        """Keep a step. Where there is no room for it, the task goes on without.

        Raises:
            _StepKept: the step is kept.
        """
        super().put(key, value, cost, about)
        if self.has(key):
            raise _StepKept(about["step"])


@dataclass(eq=False)
class _Chain:
    """Steps of a task that come one after another: what all its studies begin with, one study, or its numbers."""

    task: Task
    studies: tuple[Study, ...] = ()
    is_last: bool = False
    steps: int = 1
    """How many are still to come, as far as is known."""


def run_on_ray(tasks: Sequence[Task], store: Store, address: str | None = None) -> Iterator[Done]:
    """Run the tasks on a cluster, in any order.

    A worker goes on with the chain of steps whose model it has, so there are never more chains than workers.

    Args:
        tasks: what to run.
        store: on a file system that all nodes share.
        address: of the cluster; None: one is started on this machine.

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """
    ray = _connected(address)
    threads = torch.get_num_threads()
    common = (str(store.folder), threads, code_version())

    def begun(chain: _Chain) -> Any:
        gpus = int(_gpus(ray, chain.task) > 0)
        remote = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=TRIES)
        if chain.is_last:
            return remote(_end).remote(chain.task, *common)
        return remote(_step).remote(chain.task, chain.studies, *common)

    waiting = deque(_Chain(task, steps=len(first_steps(task))) for task in tasks)
    of_studies = {
        id(task): [_Chain(task, (study,), steps=len(study.steps)) for study in task.studies] for task in tasks
    }
    total = sum(chain.steps for chain in waiting) + len(tasks)
    total += sum(chain.steps for chains in of_studies.values() for chain in chains)
    n_done, running = 0, dict[Any, _Chain]()
    while waiting or running:
        while waiting and len(running) < _at_once(ray, waiting[0].task, threads):
            chain = waiting.popleft()
            running[begun(chain)] = chain
        (found, *_), _ = ray.wait(list(running))
        chain, result = running.pop(found), ray.get(found)
        if chain.is_last:
            say(f"{(n_done := n_done + 1)} of {total} steps: {chain.task}: numbers")
            yield replace(result, task=chain.task)
            continue
        kept, why_not = result
        if kept:
            total += chain.steps == 0  # one that nobody foresaw
            n_done, chain.steps = n_done + 1, max(chain.steps - 1, 0)
            say(f"{n_done} of {total} steps: {chain.task}: {kept}")
            waiting.appendleft(chain)
            continue
        n_done += chain.steps  # those that the store had
        others = of_studies[id(chain.task)]
        if why_not and not chain.studies:
            n_done += 1 + sum(other.steps for other in others)
            yield Done(chain.task, {}, why_not)
        elif chain.studies:
            others.remove(chain)
            waiting.extendleft([] if others else [_Chain(chain.task, is_last=True)])
        else:
            waiting.extendleft(reversed(others))


def _gpus(ray: Any, task: Task) -> int:
    """How many GPUs the cluster has that the task could use."""
    return 0 if task.job.model.device == "cpu" else int(ray.cluster_resources().get("GPU", 0))


def _at_once(ray: Any, task: Task, threads: int) -> int:
    """How many such tasks the cluster computes at once."""
    processes = int(ray.cluster_resources().get("CPU", 0)) // threads
    return max(1, min(processes, _gpus(ray, task) or processes))


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


def _step(task: Task, studies: Sequence[Study], folder: str, threads: int, code: str) -> tuple[str, str]:
    """Compute the next step of what all studies of a task begin with, and of some of them.

    Gives its name, nothing where none is left, and why there can be none, if so.
    """
    try:
        with _as_the_driver(threads, code):
            loaded = _loaded(task.job.model, folder)
            begun = begin(task, loaded.model, prepare(task), _ForOneStep(Path(folder)))
            run_studies(begun, studies, report=task.studies)
    except _StepKept as kept:
        return str(kept), ""
    except InputError as error:
        return "", str(error)
    return "", ""


def _end(task: Task, folder: str, threads: int, code: str) -> Done:
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
