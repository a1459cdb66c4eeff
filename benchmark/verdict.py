"""The outcome in plain words, whichever way it falls."""

from typing import Literal

from benchmark.cells import signed
from benchmark.table import METRICS, PASS_MARK, Comparison, Row

Outcome = Literal["better", "worse", "inconclusive", "none"]
NUMBERS = {1: "one seed", 2: "two seeds", 3: "three seeds", 4: "four seeds"}


def outcome(row: Row) -> Outcome:
    """Return whether MAE transferred better or worse than supervised; `none` where they cannot be compared."""
    difference = row.difference
    if difference is None:
        return "none"
    if difference.interval is None or difference.interval[0] <= 0 <= difference.interval[1]:
        return "inconclusive"
    return "better" if difference.mean > 0 else "worse"


def task_verdict(row: Row) -> str:
    """Return one sentence on one row."""
    head = f"{row.task} ({row.metric}): "
    if row.refused:
        return f"{head}no verdict, the runs are not comparable: {'; '.join(row.refused)}."
    difference = row.difference
    if difference is None:
        lacking = [arm for arm in ("mae", "supervised") if not row.values[arm]]
        why = f"no completed run of {' and '.join(lacking)}" if lacking else "the two arms share no seed"
        return f"{head}no verdict, {why}."
    said = {
        "better": "MAE transfers better than supervised",
        "worse": "supervised transfers better than MAE",
        "inconclusive": "inconclusive",
    }[outcome(row)]
    each = ", ".join(signed(value) for value in difference.per_seed.values())
    text = f"{head}{said}; MAE minus supervised {signed(difference.mean)} ({each} by seed; {_seeds(difference.n)}"
    if difference.interval is None:
        return f"{text}: no interval from one)."
    low, high = difference.interval
    holds = ", which holds 0" if outcome(row) == "inconclusive" else ""
    return f"{text}), 95 % t interval {signed(low)} to {signed(high)}{holds}."


def own_task_verdict(comparison: Comparison) -> str:
    """Return how the supervised arm did on its own task, against the pass mark."""
    own = comparison.own_task
    if own.top1 is None:
        return f"Supervised arm on its own task: not recorded (pass mark {PASS_MARK:.0f} % top1)."
    mark = f"pass mark {PASS_MARK:.0f} %: {'passed' if own.passed else 'MISSED'}"
    return f"Supervised arm on its own task: {own.top1:.1f} % top1 on held-out images ({mark})."


def overall_verdict(comparison: Comparison) -> str:
    """Return one sentence on all tasks, by their first metrics."""
    by_task = {row.task: outcome(row) for row in comparison.rows if row.metric == METRICS[row.task][0]}
    phrases: dict[Outcome, str] = {
        "better": "MAE transfers better than supervised on {}",
        "worse": "supervised transfers better than MAE on {}",
        "inconclusive": "inconclusive on {}",
        "none": "no comparison on {}",
    }
    parts = []
    for kind, phrase in phrases.items():
        if tasks := [task for task, found in by_task.items() if found == kind]:
            parts.append(phrase.format(_listed(tasks)))
    counts = sorted({row.difference.n for row in comparison.rows if row.difference is not None})
    seeds = f" ({' or '.join(_seeds(n) for n in counts)} per task)" if counts else ""
    text = f"Overall: {'; '.join(parts)}{seeds}."
    own = comparison.own_task
    if own.top1 is not None and not own.passed:
        text += (
            f" The comparison is a straw man: the supervised arm reached {own.top1:.1f} % top1 on its own task, "
            f"below {PASS_MARK:.0f} %."
        )
    return text


def verdicts(comparison: Comparison) -> list[str]:
    """Return the lines in their order: each task, the supervised arm's own task, overall."""
    firsts = [row for row in comparison.rows if row.metric == METRICS[row.task][0]]
    return [*(task_verdict(row) for row in firsts), own_task_verdict(comparison), overall_verdict(comparison)]


def _seeds(n: int) -> str:
    return NUMBERS.get(n, f"{n} seeds")


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
