"""Tasks as pairs of words, built in or from a file, and their prompts of questions and answers (arXiv 2310.15213)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from icl_circuits.errors import InputError, require_whole
from icl_circuits.models import LensModel
from icl_circuits.prompts.cells import class_of, text_of
from icl_circuits.prompts.paired import token_batch
from icl_circuits.prompts.tables import Data, read_table, require_column
from icl_circuits.prompts.tokens import TokenBatch
from icl_circuits.stats import generator

TASKS = "tasks"


class WordPair(NamedTuple):
    """What a task is asked of, and its right answer."""

    text: str
    answer: str


@dataclass(frozen=True)
class Task:
    """A task as its pairs, no text twice."""

    name: str
    pairs: tuple[WordPair, ...]


class TaskPrompts(NamedTuple):
    """By the task's name, prompts that tell it, and the same ones with answers that do not, row by row partners."""

    clean: dict[str, TokenBatch]
    shuffled: dict[str, TokenBatch]
    """The answers of the demonstrations are shuffled among themselves; queries and their answers stay."""


def load_tasks(
    data: Data = TASKS,
    *,
    text_column: str = "text",
    answer_column: str = "label",
    task_column: str = "task",
    encoding: str | None = None,
    delimiter: str | None = None,
) -> tuple[Task, ...]:
    """Load tasks, in the order in which they come.

    Args:
        data: `tasks` (built in: eight tasks of 29 to 36 pairs), or whatever `load_rows` takes.
        text_column: the column with what is asked.
        answer_column: the column with the answers, without the space before.
        task_column: the column with the names of the tasks.
        encoding: of a file, as for `load_rows`.
        delimiter: of a file, as for `load_rows`.

    Returns:
        The tasks. A text that comes again in its task counts for its first answer.

    Raises:
        InputError: no such data set or column, a file that cannot be read, a column that stands there twice, or an
            empty or unreadable cell. Rows are counted from 0.
    """
    columns = (text_column, answer_column, task_column)
    if len(set(columns)) < 3:
        raise InputError(f"text_column, answer_column and task_column are {list(columns)}: name three columns")
    name, frame = read_table(data, {TASKS: "tasks.csv"}, encoding, delimiter)
    for column in columns:
        require_column(name, frame, column)
    tasks: dict[str, dict[str, WordPair]] = {}
    for number, row in enumerate(zip(*(frame[column] for column in columns), strict=True)):
        where = f"data {name!r}, row {number} (from 0)"
        text, answer = (text_of(row[i], f"{where}, {columns[i]}").strip() for i in (0, 1))
        task = class_of(row[2], f"{where}, {task_column}")
        for column, value in zip(columns, (text, answer, task), strict=True):
            if not value:
                raise InputError(f"{where}: empty {column}: fill it in, or leave the row out")
        tasks.setdefault(task, {}).setdefault(text, WordPair(text, answer))
    return tuple(Task(task, tuple(pairs.values())) for task, pairs in tasks.items())


def task_prompts(model: LensModel, tasks: Sequence[Task], n: int, *, shots: int = 10, seed: int = 0) -> TaskPrompts:
    r"""Sample `n` prompts of each task: `Q: <text>\nA: <answer>\n\n` a demonstration, then `Q: <query>\nA:`.

    The template is that of Todd et al. 2024, "Function Vectors in Large Language Models", arXiv 2310.15213.
    A partner has the same texts, each with the answer of another demonstration, and the same query. An answer of
    several tokens is scored by its first that is not space alone.

    Args:
        model: gives the tokenizer, the context length and the device.
        tasks: each with more pairs than shots.
        n: how many prompts of each task.
        shots: demonstrations in each; 2 or more, so that answers can be shuffled. The paper uses 10.
        seed: of every random choice.

    Raises:
        InputError: no tasks, two of one name, too few pairs, or no whole numbers of prompts and shots; and what
            `token_batch` raises.
    """
    require_whole(n, 1, f"cannot sample {n} prompts: ask for at least 1")
    require_whole(shots, 2, f"shots is {shots}: ask for at least 2, so that their answers can be shuffled")
    names = [task.name for task in tasks]
    if not names or len(set(names)) < len(names):
        raise InputError(f"tasks are {names}: give one or more, each once")
    prompts = TaskPrompts({}, {})
    for number, task in enumerate(tasks):
        if len(task.pairs) <= shots:
            raise InputError(
                f"task {task.name!r} has {len(task.pairs)} pairs, but {shots} shots and a query need {shots + 1}: "
                "lower the shots or add pairs"
            )
        rng, texts, twins, answers = generator(seed, number), [], [], []
        for _ in range(n):
            *demos, query = (task.pairs[i] for i in rng.choice(len(task.pairs), size=shots + 1, replace=False))
            order = rng.permutation(shots).tolist()
            moved = {here: demos[there].answer for here, there in zip(order, [*order[1:], order[0]], strict=True)}
            texts.append(_written(demos, query))
            twins.append(_written([demo._replace(answer=moved[i]) for i, demo in enumerate(demos)], query))
            answers.append(f" {query.answer}")
        prompts.clean[task.name] = token_batch(model, texts, answers)
        prompts.shuffled[task.name] = token_batch(model, twins, answers)
    return prompts


def _written(demos: Sequence[WordPair], query: WordPair) -> str:
    return "".join(f"Q: {demo.text}\nA: {demo.answer}\n\n" for demo in demos) + f"Q: {query.text}\nA:"
