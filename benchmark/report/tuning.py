"""What tuning did: every learning rate that was searched, with the values of all arms and their difference."""

from benchmark.compare.comparison import Comparison
from benchmark.report.names import title
from benchmark.report.tables import DASH, Grid
from benchmark.study.search import Choice

TUNING_TITLE = "What tuning did"
CAPTION = (
    "The searches of the learning rate: {metric} of one run per learning rate and arm, on images that no result is "
    "taken from. A star marks the learning rate that an arm was given. The difference is {claim} minus {against} at "
    "the same learning rate. Where its sign changes between neighbours, tuning decides, and single runs do not tell "
    "that from chance."
)


def tuning_grid(comparison: Comparison) -> Grid | None:
    """Return a row per task and learning rate, None where nothing was searched."""
    choices = comparison.store.choices
    if not choices:
        return None
    arms = [arm for arm in comparison.arms if any(choice.arm == arm for choice in choices)]
    rows = []
    for task in dict.fromkeys(choice.task for choice in choices):
        found = {choice.arm: choice for choice in choices if choice.task == task}
        for base_lr in sorted({tried.base_lr for choice in found.values() for tried in choice.tried}):
            cells = [_cell(found.get(arm), base_lr) for arm in arms]
            rows.append((task, f"{base_lr:g}", *cells, _difference(comparison, found, base_lr)))
    metrics = ", ".join(dict.fromkeys(choice.metric for choice in choices))
    claim, against = title(comparison.claim), title(comparison.against)
    return Grid(
        caption=CAPTION.format(metric=metrics, claim=claim, against=against),
        head=("task", "learning rate", *map(title, arms), f"{claim} minus {against}"),
        rows=tuple(rows),
    )


def _value(choice: Choice | None, base_lr: float) -> float | None:
    tried = () if choice is None else choice.tried
    return next((item.value for item in tried if item.base_lr == base_lr), None)


def _cell(choice: Choice | None, base_lr: float) -> str:
    if choice is None or all(item.base_lr != base_lr for item in choice.tried):
        return DASH
    value = _value(choice, base_lr)
    star = " *" if choice.base_lr == base_lr else ""
    return ("diverged" if value is None else f"{value:.{choice.decimals}f}") + star


def _difference(comparison: Comparison, found: dict[str, Choice], base_lr: float) -> str:
    first, second = (_value(found.get(arm), base_lr) for arm in (comparison.claim, comparison.against))
    if first is None or second is None:
        return DASH
    return f"{first - second:+.{found[comparison.claim].decimals}f}"
