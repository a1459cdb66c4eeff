"""Pictures of precision over recall."""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from detection.evaluation.score import CocoScores
from engine.drawing import label_text, write_figure

MOST_NAMED = 20  # classes with a colour and a name; more are drawn in grey
RECALL = np.linspace(0, 1, 101)


def draw_precision(path: Path, scores: dict[str, CocoScores]) -> Path:
    """Write a PNG of the curves at IoU 0.5, one panel for boxes and one for masks, and return its path.

    The black line is the mean over the classes that have an object; names come with their AP over all ten IoUs.
    """
    figure = Figure(figsize=(6.4 * len(scores), 4.8), layout="constrained")
    panels = figure.subplots(1, len(scores), squeeze=False)[0]
    for panel, (kind, one) in zip(panels, scores.items(), strict=True):
        present = [number for number, row in enumerate(one.precision50_KR) if row[0] >= 0]
        named = len(present) <= MOST_NAMED
        ranked = sorted(present, key=lambda number: -one.class_ap[one.class_names[number]])
        for place, number in enumerate(ranked):
            colour = colormaps["tab20"](place % 20) if named else "0.8"
            name = one.class_names[number]
            label = f"{label_text(name)} {one.class_ap[name]:.1f}" if named else None
            panel.plot(RECALL, one.precision50_KR[number], color=colour, linewidth=1, label=label)
        mean_R = one.precision50_KR[present].mean(axis=0)
        panel.plot(RECALL, mean_R, color="black", linewidth=2, label=f"all {one.summary['ap']:.1f}")
        panel.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        panel.set_title(f"{kind}: AP50 {one.summary['ap50']:.1f}", fontsize=10)
        panel.legend(fontsize=7, title="AP", title_fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    write_figure(figure, path, dpi=100)
    return path
