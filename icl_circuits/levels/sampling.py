"""Prompts of a task, for any number of shots: the same queries, and demonstrations that more shots only add to."""

from zlib import crc32

from icl_circuits.errors import InputError, require_whole
from icl_circuits.levels.task import LevelTask
from icl_circuits.prompts import Demo, Prompt
from icl_circuits.stats import generator


def level_prompts(task: LevelTask, n: int, *, shots: int, seed: int = 0) -> tuple[Prompt, ...]:
    """Sample `n` prompts of a task, with `shots` demonstrations in all, in random order.

    Each label is right equally often over the prompts, and is shown equally often in a prompt, to within one. So with
    as many shots as labels each is shown. No text comes twice in a prompt, so no query stands among its demonstrations;
    its two words in the other order may. Balance is ours: the paper says only that each class appears once shots exceed
    classes (arXiv 2402.13055, section 5).

    Prompt `i` asks the same query whatever the shots, and has all demonstrations that it has with fewer.

    Args:
        task: the task.
        n: how many prompts.
        shots: demonstrations, not of each label but together; 0 or more.
        seed: of every random choice. What is drawn does not depend on other tasks.

    Raises:
        InputError: no prompts, negative shots, a negative seed, or a label with too few texts.
    """
    require_whole(n, 1, f"n_prompts is {n}: ask for at least 1")
    require_whole(shots, 0, f"shots is {shots}: ask for 0 (zero-shot) or more")
    n_labels, name = len(task.labels), crc32(task.name.encode())
    n_rounds = -(-shots // n_labels)
    for label, texts in zip(task.labels, task.texts, strict=True):
        if len(texts) <= n_rounds:
            raise InputError(
                f"task {task.name!r}: label {label!r} has {len(texts)} texts, but {shots} shots and a query need "
                f"{n_rounds + 1}: ask for fewer shots or give more words"
            )
    golds = generator(seed, name, 0).permutation(n) % n_labels
    prompts = []
    for number, gold in enumerate(golds.tolist()):
        rng = generator(seed, name, 1 + number)
        shuffled = [[texts[i] for i in rng.permutation(len(texts))] for texts in task.texts]
        query = shuffled[gold].pop()
        rounds = [rng.permutation(n_labels).tolist() for _ in range(n_rounds)]
        demos = [
            Demo(shuffled[label][place], task.labels[label], label)
            for place, order in enumerate(rounds)
            for label in order
        ][:shots]
        order = rng.permutation(shots)
        origin = f"task {task.name!r}, {shots} shots, seed {seed}, prompt {number}"
        prompts.append(Prompt(tuple(demos[i] for i in order), query, task.labels[gold], gold, task.labels, origin))
    return tuple(prompts)
