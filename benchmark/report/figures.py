"""Pictures of a report: differences with their intervals, training curves, cost against quality, what the arms predict.

Every picture is returned as a data URL, so that a page needs no other file.
"""

import base64
import csv
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from benchmark.compare.comparison import ArmCost, Comparison, Row
from benchmark.compare.contrast import Contrast
from benchmark.compare.records import Stored
from benchmark.report.names import title
from engine.curves import read_series
from engine.drawing import label_text
from engine.images.file import opened
from engine.records.metrics_file import CSV_NAME
from metrics.metric import PERCENT

# Okabe and Ito's colours, told apart by colour-blind readers; further arms take the rest in order
COLOURS = ("#999999", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
NARROW = 3.4  # inches: 442 pixels, so that 8 points are 12 pixels on a screen 368 wide within its margins
WIDEST = 900  # pixels of an embedded picture
JPEG_QUALITY = 82
LOSS = "loss"
MOST_LINES = 5  # of one arm in a panel


def differences_picture(comparison: Comparison, *, narrow: bool = False) -> str | None:
    """Return the claim's arm minus every other on the leading metric of each task, None where nothing is compared.

    `narrow` is for a screen of some 400 pixels: names above their rows, and text that stays legible.
    """
    items = [item for row in comparison.rows if row.primary for item in row.contrasts]
    if not items:
        return None
    alike: dict[tuple[str, bool], list[Contrast]] = {}
    for item in items:
        alike.setdefault((item.metric.unit, item.metric.higher_is_better), []).append(item)
    heights = [0.9 + (0.62 if narrow else 0.42) * len(group) for group in alike.values()]
    figure = Figure(figsize=(NARROW if narrow else 7.2, sum(heights)), layout="constrained")
    panels = figure.subplots(len(alike), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, ((unit, higher), group) in zip(panels, alike.items(), strict=True):
        _draw_differences(panel, group, comparison, narrow=narrow)
        measure = {PERCENT: ", percentage points", "": ""}.get(unit, f", {unit}")
        reversed_axis = "" if higher else " (axis reversed: lower is better)"
        label = f"{label_text(title(comparison.claim))} minus the other arm{measure}{reversed_axis}"
        label = fill(label, 44) if narrow else label
        panel.set_xlabel(label, fontsize=8)
        if not higher:
            panel.invert_xaxis()  # right of 0 the claim's arm is better, in every panel
    return _png(figure)


def _draw_differences(panel: Axes, items: Sequence[Contrast], comparison: Comparison, *, narrow: bool) -> None:
    for place, item in enumerate(reversed(items)):
        colour = _colour(comparison, item.reference)
        if item.margin is not None:
            panel.fill_betweenx([place - 0.4, place + 0.4], -item.margin, item.margin, color="#dddddd", linewidth=0)
        if item.interval is not None:
            panel.plot(item.interval, [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
        panel.plot([item.mean], [place], "o", color=colour, markersize=6)
        each = [*item.per_seed.values()]
        panel.plot(each, [place] * len(each), "|", color="black", markersize=7, alpha=0.6)
    panel.axvline(0, color="black", linewidth=0.8)
    names = [label_text(f"{i.task} {i.metric.name}, against {title(i.reference)}", most=100) for i in reversed(items)]
    if narrow:
        panel.set_yticks([])
        for place, name in enumerate(names):
            line = panel.text(0.01, place + 0.22, name, fontsize=8, va="bottom", transform=panel.get_yaxis_transform())
            line.set_in_layout(False)  # a long name leaves the panel as it is
            line.set_clip_on(True)
            line.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # above the line at 0
    else:
        panel.set_yticks(range(len(items)), names, fontsize=8)
    panel.set_ylim(-0.6, len(items) - (0.2 if narrow else 0.4))  # as much room above and below few rows as many
    panel.tick_params(axis="x", labelsize=8)
    panel.grid(axis="x", alpha=0.3)


def curves_picture(comparison: Comparison, notes: list[str], *, narrow: bool = False) -> str | None:
    """Return the summed training loss by step, a panel per task, of the first MOST_LINES runs of each arm.

    None where no run has a metrics.csv. One that cannot be read is left out, with a line in `notes`, and so is one that
    is damaged, which the account of the records says. `narrow` has the panels below one another.
    """
    tasks: dict[str, list[tuple[str, list[int], list[float]]]] = {}
    counted: Counter[tuple[str, str]] = Counter()
    for item in comparison.store.completed:
        if item.line is None:
            continue
        key = (item.line.label, item.arm)
        if counted[key] == MOST_LINES or (path := item.file(CSV_NAME)) is None:
            continue
        try:
            series = read_series(path)
        except (ValueError, OSError, csv.Error) as error:
            notes.append(f"Curve left out: {error}")
            continue
        if LOSS in series:
            counted[key] += 1
            tasks.setdefault(item.line.label, []).append((item.arm, *series[LOSS]))
    if not tasks:
        return None
    figure, panels = _row_of_panels(len(tasks), height=3.2, narrow=narrow)
    for panel, (task, lines) in zip(panels, tasks.items(), strict=True):
        named = set()
        for arm, steps, values in lines:
            label = None if arm in named else label_text(title(arm))
            named.add(arm)
            panel.plot(steps, values, color=_colour(comparison, arm), linewidth=1.1, alpha=0.8, label=label)
        _dress(panel, f"{task}: training loss", "step")
    return _png(figure)


def without_cost(comparison: Comparison) -> list[str]:
    """Return the arms that have results and no recorded cost of pre-training, as those of public files."""
    known = {cost.arm for cost in comparison.costs if _training_flops(cost) is not None} | {"random"}
    rows = [row for row in comparison.rows if row.primary]
    return [arm for arm in comparison.arms if arm not in known and any(row.values.get(arm) for row in rows)]


def cost_picture(comparison: Comparison, *, narrow: bool = False) -> str | None:
    """Return the leading metric of each task over the compute of pre-training; None where no arm was pre-trained.

    `narrow` has the panels below one another.
    """
    rows = [row for row in comparison.rows if row.primary and any(row.values.values())]
    costs = {cost.arm: _training_flops(cost) for cost in comparison.costs}
    if not rows or not any(costs.values()):
        return None
    figure, panels = _row_of_panels(len(rows), height=3.0, narrow=narrow)
    for panel, row in zip(panels, rows, strict=True):
        _draw_cost(panel, row, costs, comparison)
        _dress(panel, f"{row.task}: {row.metric.label}", "pre-training, MACs (estimate)")
        panel.ticklabel_format(axis="x", style="sci", scilimits=(0, 0))
    return _png(figure)


def embedded(path: str) -> str:
    """Return a picture file as a JPEG no wider than WIDEST, as a data URL. Raises UnreadableImageError."""
    with opened(path, path) as picture:
        small = picture.convert("RGB")
    if small.width > WIDEST:
        small = small.resize((WIDEST, round(small.height * WIDEST / small.width)), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    small.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def same_pictures(stored: Sequence[Stored], arms: Sequence[str]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return (name of the picture, [(arm, path)]) of the pictures that all runs of one seed have, arms in their order.

    The seed is the lowest that the most runs have.
    """
    by_seed: dict[int, list[Stored]] = {}
    for item in stored:
        by_seed.setdefault(item.record.seed, []).append(item)
    if not by_seed:
        return []
    most = max(by_seed.items(), key=lambda pair: (len(pair[1]), -pair[0]))[1]
    chosen = sorted(most, key=lambda item: arms.index(item.arm))
    names = [[name for name in item.record.pictures if item.file(name)] for item in chosen]
    shared = [name for name in names[0] if all(name in others for others in names)]
    return [(name, [(item.arm, str(item.folder / name)) for item in chosen]) for name in shared]


def _row_of_panels(count: int, *, height: float, narrow: bool) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels beside one another, or below; `height` of a panel in inches."""
    size = (NARROW, height * count) if narrow else (3.6 * count, height)
    figure = Figure(figsize=size, layout="constrained")
    shape = (count, 1) if narrow else (1, count)
    return figure, [*figure.subplots(*shape, squeeze=False).flat]


def _draw_cost(panel: Axes, row: Row, costs: dict[str, float | None], comparison: Comparison) -> None:
    for arm in comparison.arms:
        summary = row.summary(arm)
        flops = 0.0 if arm == "random" else costs[arm]
        if summary is None or flops is None:
            continue
        panel.errorbar(
            flops,
            summary.mean,
            yerr=summary.sd or 0.0,
            fmt="o",
            capsize=3,
            color=_colour(comparison, arm),
            label=label_text(title(arm)),
        )


def _training_flops(cost: ArmCost) -> float | None:
    if cost.training_flops is None or cost.samples_seen is None:
        return None
    return cost.training_flops * cost.samples_seen


def _colour(comparison: Comparison, arm: str) -> str:
    return COLOURS[comparison.arms.index(arm) % len(COLOURS)]


def _dress(panel: Axes, title: str, below: str) -> None:
    panel.set_title(label_text(title), fontsize=9)
    panel.set_xlabel(below, fontsize=8)
    panel.tick_params(labelsize=8)
    panel.grid(alpha=0.3)
    if panel.get_legend_handles_labels()[0]:
        panel.legend(fontsize=7)


def png_bytes(figure: Figure) -> bytes:
    """Return the figure as a PNG; equal figures give equal bytes."""
    buffer = BytesIO()
    figure.savefig(buffer, dpi=130, format="png", metadata={"Software": None})
    return buffer.getvalue()


def data_url(png: bytes) -> str:
    """Return a PNG as a page embeds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _png(figure: Figure) -> str:
    return data_url(png_bytes(figure))
