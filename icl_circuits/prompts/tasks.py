"""Tasks as pairs of words, built in or from a file, and their prompts of questions and answers (arXiv 2310.15213)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from icl_circuits.errors import InputError, require_whole
from icl_circuits.models import LensModel
from icl_circuits.prompts.cells import class_of, stripped
from icl_circuits.prompts.paired import token_batch
from icl_circuits.prompts.tables import Data, cells_of, read_table, require_three
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
    require_three({"text_column": text_column, "answer_column": answer_column, "task_column": task_column})
    name, frame = read_table(data, {TASKS: "tasks.csv"}, encoding, delimiter)
    readers = [(text_column, None, stripped), (answer_column, None, stripped), (task_column, None, class_of)]
    tasks: dict[str, dict[str, WordPair]] = {}
    for _, (text, answer, task) in cells_of(name, frame, readers):
        tasks.setdefault(task, {}).setdefault(text, WordPair(text, answer))
    return tuple(Task(task, tuple(pairs.values())) for task, pairs in tasks.items())


QUESTION, BETWEEN = "Q: {}\nA:", "\n\n"
"""The template of Todd et al. 2024, "Function Vectors in Large Language Models", arXiv 2310.15213."""


def task_prompts(
    model: LensModel,
    tasks: Sequence[Task],
    n: int,
    *,
    shots: int = 10,
    seed: int = 0,
    question: str = QUESTION,
    separator: str = BETWEEN,
) -> TaskPrompts:
    r"""Sample `n` prompts of each task: `Q: <text>\nA: <answer>\n\n` a demonstration, then `Q: <query>\nA:`.

    A partner has the same texts, each with the answer of another demonstration, and the same query. An answer of
    several tokens is scored by its first that is not space alone.

    Args:
        model: gives the tokenizer, the context length and the device.
        tasks: each with more pairs than shots.
        n: how many prompts of each task.
        shots: demonstrations in each; 2 or more, so that answers can be shuffled. The paper uses 10.
        seed: of every random choice.
        question: how a text is asked about, `{}` in its place.
        separator: behind each demonstration.

    Raises:
        InputError: a question without `{}`, no tasks, two of one name, too few pairs, or no whole numbers of prompts
            and shots; and what `token_batch` raises.
    """
    require_whole(n, 1, f"cannot sample {n} prompts: ask for at least 1")
    require_whole(shots, 2, f"shots is {shots}: ask for at least 2, so that their answers can be shuffled")
    if question.count("{}") != 1:
        raise InputError(f"question is {question!r}: write {{}} once, where the text stands")
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
            others = [demo._replace(answer=moved[i]) for i, demo in enumerate(demos)]
            texts.append(_written(demos, query, question, separator))
            twins.append(_written(others, query, question, separator))
            answers.append(f" {query.answer}")
        prompts.clean[task.name] = token_batch(model, texts, answers)
        prompts.shuffled[task.name] = token_batch(model, twins, answers)
    return prompts


def _written(demos: Sequence[WordPair], query: WordPair, question: str, separator: str) -> str:
    asked = (f"{question.replace('{}', demo.text)} {demo.answer}{separator}" for demo in demos)
    return "".join(asked) + question.replace("{}", query.text)
