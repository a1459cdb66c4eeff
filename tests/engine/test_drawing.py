"""Names from outside in figures."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from detection.evaluation.draw import PANEL_INCHES, draw_detections, draw_objects
from engine.drawing import MOST, label_text

NAMES = [
    "$a$",
    r"\$5$ or $\frac$",
    "$^^$",
    "_hidden_",
    os.fsdecode(b"caf\xe9.jpg"),
    "a\nb\tc\0",
    "x" * 300,
    "\u5c71",
    "",
]


def test_what_is_drawn() -> None:
    shown = [label_text(name) for name in NAMES]
    assert shown[:2] == [r"\$a\$", r"\\$5\$ or \$\frac\$"]
    assert shown[3:6] == [" _hidden_", "caf\ufffd.jpg", "a b c "]
    assert shown[6] == "x" * (MOST - 3) + "..." and label_text("folder/" * 20 + "1.jpg", keep="end").endswith(
        "/folder/1.jpg"
    )
    assert shown[7:] == ["?", ""] and label_text(7) == "7"


@pytest.mark.parametrize("name", NAMES)
def test_every_place_of_a_figure_takes_it(name: str) -> None:
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    axes.set_title(label_text(name))
    axes.set_yticks([0], [label_text(name, most=30)])
    axes.text(0, 0, label_text(name))
    legend = axes.legend(handles=[Patch(label=label_text(name))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.draw_without_rendering()
    assert len(legend.get_texts()) == 1
    # nothing is a formula: the text that is laid out is the name itself
    text, formula = axes.title._preprocess_math(axes.title.get_text())
    assert not formula and text.replace(" ", "")[:3] == label_text(name).replace("\\$", "$").replace(" ", "")[:3]


def test_a_class_called_like_a_formula_is_drawn(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "a.png")
    found = [{"bbox": [2, 2, 9, 9], "category_id": 1, "score": 0.9}]
    draw_detections(tmp_path / "out.png", str(tmp_path / "a.png"), found=found, names={1: r"$\frac$"})
    assert (tmp_path / "out.png").stat().st_size > 1000


def test_labels_of_boxes_at_the_edges_are_whole() -> None:
    """Above, at the top and at the right of an image: no label leaves the panel."""
    boxes = [[10, 60, 20, 20], [0, 0, 30, 30], [170, 50, 28, 20], [150, 0, 50, 40]]
    figure = Figure(figsize=(PANEL_INCHES, PANEL_INCHES / 2), dpi=100)
    panel = figure.add_axes((0, 0, 1, 1))
    objects = [{"bbox": box, "category_id": 1, "score": 0.9} for box in boxes]
    draw_objects(panel, np.zeros((100, 200, 3), np.uint8), objects, names={1: "traffic light"})
    figure.draw_without_rendering()
    assert len(panel.texts) == len(boxes)
    for text in panel.texts:
        extent = text.get_window_extent()
        assert extent.x0 >= -1 and extent.x1 <= 501 and extent.y1 <= 251
