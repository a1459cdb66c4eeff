"""A picture of how a run went: its losses, its learning rate and its metrics by step, from metrics.csv."""

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engine.drawing import label_text, write_figure
from engine.records.metrics_file import VALIDATION, parse_rows

CURVES_NAME = "curves.png"
LEADING = 3  # metrics drawn of each kind (box_ap, box_ap50, ...), since the many that follow would hide them
# each in a panel of its own: rates, and numbers that are watched and not optimised
WATCHED = ("lr", "grad_norm", "loss_scale", "feature_spread", "feature_rank")
ABREAST = 4  # panels of a row
PROBE = "probe_"  # of the features while a ViT trains; top-1 of them in one panel, what else there is each in its own
TOP1 = ("probe_knn", "probe_linear")
NOT_LOSSES = (*WATCHED, "images_per_second", "data_wait")

Series = dict[str, tuple[list[int], list[float]]]


def read_series(path: Path) -> Series:
    """Return steps and values by name, in the order of the file. Raises ValueError for a line that is no row."""
    content = path.read_bytes()
    rows, bad = parse_rows(content)
    if bad:
        line = content.split(b"\n")[bad[0] - 1].decode(errors="replace").strip()
        raise ValueError(f"{path}: line {bad[0]} is no step, name and value: {line[:200]}")
    series: Series = {}
    for row in rows:
        steps, values = series.setdefault(row.name, ([], []))
        steps.append(row.step)
        values.append(row.value)
    return series


def draw_curves(metrics: Path, picture: Path) -> list[Path]:
    """Write the PNG and return its path, or nothing where metrics.csv is missing or holds no step."""
    series = read_series(metrics) if metrics.is_file() else {}
    if not series:
        return []
    validation = {name.removeprefix(VALIDATION): s for name, s in series.items() if name.startswith(VALIDATION)}
    losses = {name: s for name, s in series.items() if name not in NOT_LOSSES and not name.startswith(VALIDATION)}
    rates: Series = {name: series[name] for name in WATCHED if name in series}
    panels = [(losses, "loss", True), *(((one, name, False) for name, one in _each(rates)))]
    probes = {name: validation.pop(name) for name in list(validation) if name.startswith(PROBE)}
    if validation:
        panels.append((_leading(validation), "validation", False))
    if scores := {name: probes.pop(name) for name in TOP1 if name in probes}:
        panels.append((scores, "features: top-1", False))
    panels += [(one, name, False) for name, one in _each(probes)]
    columns = min(len(panels), ABREAST)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5.0 * columns, 3.6 * rows), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, (lines, title, logarithmic) in zip(places, panels, strict=False):
        _draw(panel, lines, title, logarithmic=logarithmic)
    for panel in places[len(panels) :]:  # what is left of the last row
        panel.set_axis_off()
    write_figure(figure, picture, dpi=100)
    return [picture]


def _leading(series: Series) -> Series:
    """Return the first few of each kind, the part of a name before its first underscore."""
    kinds: dict[str, list[str]] = {}
    for name in series:
        kinds.setdefault(name.partition("_")[0], []).append(name)
    return {name: series[name] for names in kinds.values() for name in names[:LEADING]}


def _each(series: Series) -> list[tuple[str, Series]]:
    return [(name, {name: one}) for name, one in series.items()]


def _draw(panel: Axes, lines: Series, title: str, *, logarithmic: bool) -> None:
    for name, (steps, values) in lines.items():
        total = name == "loss"
        panel.plot(
            steps,
            values,
            marker="." if len(steps) < 30 else None,
            color="black" if total else None,
            linewidth=1.6 if total else 1.0,
            label=label_text(name),
        )
    every = [value for _, values in lines.values() for value in values]
    if logarithmic and every and 0 < 10 * min(every) <= max(every):  # within a decade the axis has hardly a number
        panel.set_yscale("log")
    panel.set_title(label_text(title), fontsize=10)
    panel.set_xlabel("step")
    panel.grid(alpha=0.3)
    if len(lines) > 1 or title in ("validation", "features: top-1"):
        panel.legend(fontsize=7)
