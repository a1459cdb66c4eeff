"""Transfer against the size of the model and against the samples seen in its pre-training: one table and one picture.

A point is an arm on a task. Its method, images seen and length are those of its recorded pre-training, its size is that
of the transferred model (head included); random weights have seen no image. Arms whose pre-training is not among the
records have no place on the axes and are left out, as are tasks whose runs may not be compared.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.compare.cells import Cell
from benchmark.compare.comparison import Comparison
from benchmark.compare.records import files_read
from benchmark.compare.seeds import Summary, summarise
from benchmark.report.figures import COLOURS, NARROW, png_bytes
from benchmark.report.names import RANDOM, title
from benchmark.report.tables import DASH, Grid, units
from engine.drawing import label_text
from files.naming import refuse_overwriting
from files.writing import replacing
from metrics.metric import PERCENT, Metric

MARKERS = ("o", "s", "^", "D", "v", "P")  # of the sizes, the smallest first
CAPTION = (
    "Transfer against model size and samples seen in pre-training, {0}: parameters of the transferred model (the head "
    "included), images seen in pre-training (repetitions counted), mean and standard deviation over the seeds "
    "(n)."
)


@dataclass(frozen=True, kw_only=True)
class Point:
    """An arm on a task."""

    task: str
    metric: Metric
    arm: str
    method: str
    """Of pre-training."""
    parameters: int
    samples_seen: int
    """Images seen in pre-training."""
    values: dict[Cell, float]
    """By seed."""

    @property
    def summary(self) -> Summary:
        """Mean and std over the seeds."""
        found = summarise([*self.values.values()])
        assert found is not None  # a point has a value
        return found


def scaling_points(comparison: Comparison) -> tuple[Point, ...]:
    """Return the points by task, method, size and samples seen; none where no method has two sizes or two lengths."""
    completed = comparison.store.completed
    trained = {item.arm: item.record for item in completed if item.pretrained}
    points = []
    for row in comparison.rows:
        if not row.primary or row.refused:
            continue
        sizes = {item.arm: item.record.cost.parameters for item in completed if item.line == row.line}
        for arm, values in row.values.items():
            record = trained.get(arm)
            if not values or (record is None and arm != RANDOM):
                continue
            points.append(
                Point(
                    task=row.task,
                    metric=row.metric,
                    arm=arm,
                    method=RANDOM if record is None else record.task,
                    parameters=sizes[arm],
                    samples_seen=0 if record is None else record.samples_seen,
                    values=values,
                )
            )
    # by width and depth: a position table more or less is no other size
    shapes = {i.arm: (i.record.architecture.get("embed_dim"), i.record.architecture.get("depth")) for i in completed}
    tried = {(point.method, shapes[point.arm], point.samples_seen) for point in points}
    if max(Counter(method for method, _, _ in tried).values(), default=0) < 2:
        return ()
    order = [*dict.fromkeys(point.task for point in points)]
    return tuple(sorted(points, key=lambda p: (order.index(p.task), p.method, p.parameters, p.samples_seen, p.arm)))


def scaling_grid(comparison: Comparison) -> Grid:
    """Return the table: one row per point. Raises ValueError where no method has two sizes or two lengths."""
    points = _wanted(comparison)
    return Grid(
        caption=CAPTION.format(units([point.metric for point in points])),
        head=("task", "metric", "method", "arm", "parameters (M)", "samples seen", "mean", "sd", "seeds", "by seed"),
        rows=tuple(
            (
                point.task,
                point.metric.label,
                title(point.method),
                point.arm,
                f"{point.parameters / 1e6:.2f}",
                f"{point.samples_seen:,}",
                point.metric.text(point.summary.mean),
                DASH if point.summary.sd is None else point.metric.text(point.summary.sd),
                str(point.summary.n),
                ", ".join(point.metric.text(value) for value in point.values.values()),
            )
            for point in points
        ),
    )


def scaling_picture(comparison: Comparison, *, narrow: bool = False) -> bytes | None:
    """Return the PNG: a row of panels per task, over parameters and over samples seen; None where nothing is scaled.

    `narrow` has the two below one another.
    """
    points = scaling_points(comparison)
    if not points:
        return None
    tasks = [*dict.fromkeys(point.task for point in points)]
    size = (NARROW, 6.2 * len(tasks)) if narrow else (8.4, 3.1 * len(tasks))
    figure = Figure(figsize=size, layout="constrained")
    shape = (2 * len(tasks), 1) if narrow else (len(tasks), 2)
    panels = figure.subplots(*shape, squeeze=False).reshape(len(tasks), 2)
    methods = sorted({point.method for point in points}, key=lambda method: (method != RANDOM, method))
    for (left, right), task in zip(panels, tasks, strict=True):
        mine = [point for point in points if point.task == task]
        _sizes(left, mine, methods)
        _lengths(right, mine, methods)
    return png_bytes(figure)


def write_scaling(path: Path, text: str, comparison: Comparison) -> tuple[Path, Path]:
    """Write the table to `path` and the picture beside it as .png, and return both paths.

    Raises ValueError where no method has two sizes or two lengths, and where the two would be one file.
    """
    _wanted(comparison)
    picture = path.with_suffix(".png")
    if path == picture:
        raise ValueError(f"{path}: the table goes there, and the picture beside it; name the table, as {path.stem}.md.")
    refuse_overwriting([path, picture], files_read(comparison.store))
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    with replacing(picture) as temporary:
        temporary.write_bytes(scaling_picture(comparison) or b"")
    return path, picture


def _wanted(comparison: Comparison) -> tuple[Point, ...]:
    points = scaling_points(comparison)
    if not points:
        refused = [f"{row.task}: {row.refused[0]}" for row in comparison.rows if row.primary and row.refused]
        why = f" Refused: {'; '.join(refused)}." if refused else ""
        raise ValueError(
            f"{comparison.store.root}: nothing to scale over: no method of pre-training has transfers of two sizes or "
            f"two lengths among the records; studies/scaling/study.yaml is a study of both.{why}"
        )
    return points


def _sizes(panel: Axes, points: Sequence[Point], methods: Sequence[str]) -> None:
    """Draw the metric over parameters, at the length that the most sizes were pre-trained for."""
    lengths = Counter(point.samples_seen for point in points if point.method != RANDOM)
    length = max(lengths, key=lambda seen: (lengths[seen], seen))
    for method in methods:
        mine = [point for point in points if point.method == method and point.samples_seen in (length, 0)]
        _line(panel, mine, lambda point: point.parameters / 1e6, methods.index(method), label_text(title(method)), "o")
    panel.set_xscale("log")
    panel.set_xticks(sorted({point.parameters / 1e6 for point in points}))
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:.2g}")
    panel.minorticks_off()
    _dress(panel, points[0], f"parameters (M), after {length:,} samples seen")


def _lengths(panel: Axes, points: Sequence[Point], methods: Sequence[str]) -> None:
    """Draw the metric over samples seen, a line per method and size that has two lengths or more; random is a level
    line."""
    tried = Counter((method, size) for method, size, _ in {(p.method, p.parameters, p.samples_seen) for p in points})
    most = max(tried.values())
    sizes = sorted({size for (_, size), count in tried.items() if count > 1 or most == 1})
    for number, size in enumerate(sizes):
        for method in methods:
            mine = [point for point in points if (point.method, point.parameters) == (method, size)]
            label = f"{label_text(title(method))}, {size / 1e6:.2g} M"
            if method != RANDOM:
                marker = MARKERS[number % len(MARKERS)]
                _line(panel, mine, lambda point: point.samples_seen / 1e3, methods.index(method), label, marker)
                continue
            for point in mine:
                colour = COLOURS[methods.index(method) % len(COLOURS)]
                panel.axhline(point.summary.mean, color=colour, linestyle=":", label=label)
    panel.set_xscale("log")
    panel.set_xticks(sorted({point.samples_seen / 1e3 for point in points if point.samples_seen}))
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    panel.minorticks_off()
    _dress(panel, points[0], "samples seen in pre-training (thousands)")


def _line(
    panel: Axes, points: Sequence[Point], place: Callable[[Point], float], number: int, label: str, marker: str
) -> None:
    """Draw the mean as a line and every seed as a dot."""
    if not points:
        return
    colour, found = COLOURS[number % len(COLOURS)], sorted(points, key=place)
    panel.plot(
        [place(point) for point in found],
        [point.summary.mean for point in found],
        color=colour,
        linewidth=1.3,
        marker=marker,
        markersize=5,
        markerfacecolor="none",
        label=label,
    )
    dots = [(place(point), value) for point in found for value in point.values.values()]
    panel.plot([x for x, _ in dots], [y for _, y in dots], ".", color=colour, markersize=4, alpha=0.7)


def _dress(panel: Axes, point: Point, below: str) -> None:
    panel.set_title(label_text(f"{point.task}: {_axis(point.metric)}"), fontsize=9)
    panel.set_xlabel(below, fontsize=8)
    panel.tick_params(labelsize=8)
    panel.grid(alpha=0.3)
    panel.legend(fontsize=6)


def _axis(metric: Metric) -> str:
    return f"{metric.name} (%)" if metric.unit == PERCENT else metric.label
