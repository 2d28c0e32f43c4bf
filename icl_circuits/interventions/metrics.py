"""What is measured at the answer position: one value for each prompt, never reduced early."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from icl_circuits.errors import InputError
from icl_circuits.models import LOGITS_AT_ONCE, Readout, at_least_float32
from icl_circuits.prompts import TokenBatch

MetricName = Literal["logit_diff", "between_labels", "log_prob", "prob", "top1"]
"""`logit_diff`: logit of the right answer less that of the foil, or of the best other label, in logits.
`between_labels`: 1 where that is positive, else 0 (accuracy between the labels; a tie is wrong). `log_prob`, `prob`: of
the right answer, in nats and as a probability. `top1`: 1 where it beats the whole vocabulary, else 0 (accuracy; a tie
is wrong). All read one token of an answer: the first that tells it from the others."""

Metric = (
    MetricName
    | tuple[MetricName, ...]
    | Callable[[Float[Tensor, "prompt d_vocab"], TokenBatch], Float[Tensor, "prompt *value"]]
)
"""A name; several names, which give each prompt as many values; or a function of the answer-position logits (float32 or
wider) and their prompts that gives each prompt its value or values."""

FROM_ANSWERS: tuple[MetricName, ...] = ("logit_diff", "between_labels")
"""Metrics that read the answers' logits only, so that no other column of the unembedding is computed."""
SMOOTH: tuple[MetricName, ...] = ("logit_diff", "log_prob", "prob")
"""Metrics with a useful gradient."""


def require_metric(metric: Metric | str | tuple[str, ...]) -> None:
    """Raise `InputError` unless `metric` is a known name or a function."""
    if metric == ():
        raise InputError("the metric is an empty tuple: give one name or more, or a function")
    for name in metric if isinstance(metric, tuple) else (metric,):
        if (isinstance(metric, tuple) or not callable(name)) and name not in get_args(MetricName):
            raise InputError(f"metric {name!r} is unknown: use {', '.join(get_args(MetricName))} or a function")


def metric_name(metric: Metric) -> str:
    """The name that results carry."""
    if isinstance(metric, tuple):
        return ", ".join(metric)
    return metric if isinstance(metric, str) else getattr(metric, "__name__", "metric")


def from_answer_logits(
    metric: MetricName, logits: Float[Tensor, "*rows prompt answer"], batch: TokenBatch
) -> Float[Tensor, "*rows prompt"]:
    """`logit_diff` or `between_labels` from the logits of `batch.answer_tokens`."""
    margin = batch.margin(at_least_float32(logits))
    return margin if metric == "logit_diff" else (margin > 0).to(margin)


def from_logits(
    metric: Metric, logits: Float[Tensor, "prompt d_vocab"], batch: TokenBatch
) -> Float[Tensor, "prompt *value"]:
    """Any metric from whole rows of answer-position logits."""
    if callable(metric):
        value = torch.as_tensor(metric(at_least_float32(logits), batch))
        if value.shape[:1] != logits.shape[:1]:
            raise InputError(
                f"the metric gave shape {list(value.shape)} for {len(logits)} prompts: it must give each prompt a value"
            )
        return value
    if isinstance(metric, tuple):
        return torch.stack([from_logits(name, logits, batch) for name in metric], -1)
    if metric in FROM_ANSWERS:
        return from_answer_logits(metric, logits[:, batch.answer_tokens], batch)
    logits = at_least_float32(logits)
    token = batch.target[:, None]
    right = logits.gather(1, token)[:, 0]
    if metric == "top1":
        return (right > logits.scatter(1, token, float("-inf")).amax(1)).to(right)
    log_prob = right - logits.logsumexp(1)
    return log_prob.exp() if metric == "prob" else log_prob


def from_states(
    metric: Metric, out: Readout, normed: Float[Tensor, "variant prompt d_model"], batch: TokenBatch
) -> Float[Tensor, "variant prompt *value"]:
    """Any metric from final states behind their norm, as `from_logits` gives it.

    A named one holds no more than a part of the vocabulary at once; whole rows are made for functions alone.
    """
    if callable(metric):
        step = max(1, LOGITS_AT_ONCE // (len(batch) * out.W_U.shape[1]))
        rows = [logits for some in normed.split(step) for logits in out.unembed(some)]
        return torch.stack([from_logits(metric, logits, batch) for logits in rows])
    if isinstance(metric, str):
        return from_states((metric,), out, normed, batch)[..., 0]
    found, read = {}, [name for name in metric if name in FROM_ANSWERS]
    if read:
        answers = out.unembed(normed, batch.answer_tokens)
        found = {name: from_answer_logits(name, answers, batch) for name in read}
    if len(read) < len(metric):
        stands = out.standing(normed.flatten(0, 1), batch.target.repeat(len(normed)))
        right, best_other, log_sum = (part.view(normed.shape[:2]) for part in stands)
        log_prob = right - log_sum
        found |= {"top1": (right > best_other).to(right), "log_prob": log_prob, "prob": log_prob.exp()}
    return torch.stack([found[name] for name in metric], -1)


def of_base_run(
    metric: Metric, logits: Float[Tensor, "prompt d_vocab"], batch: TokenBatch
) -> Float[Tensor, "prompt *value"]:
    """The metric with nothing changed; on a part of a batch, a function is also tried on its prompts in another order.

    Raises:
        InputError: a function that then gives a prompt another value: it counts on the whole batch.
    """
    values = from_logits(metric, logits, batch)
    if not callable(metric) or batch.part_of is None:
        return values
    order = [*reversed(range(len(batch)))] if len(batch) > 1 else [0, 0]
    with torch.no_grad():
        again = from_logits(metric, logits[order], batch.select(order))
    if not torch.allclose(again, values.detach()[order], rtol=1e-3, atol=1e-5, equal_nan=True):
        raise InputError(
            f"metric {metric_name(metric)!r} gives a prompt another value where prompts come in another order, but "
            "they are run in parts: look up what you know of each prompt by the part's rows, values[batch.rows]"
        )
    return values
