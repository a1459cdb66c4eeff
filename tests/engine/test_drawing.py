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
from engine.drawing import MOST, label_text, legend_columns, write_figure
from engine.palette import told_apart

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


def test_a_box_is_seen_on_its_own_colour(tmp_path: Path) -> None:
    colour = told_apart(3)[1]
    Image.fromarray(np.full((200, 200, 3), colour, np.uint8)).save(tmp_path / "image.png")
    found = [{"bbox": [40, 40, 120, 120], "category_id": 1, "score": 0.9}]
    draw_detections(tmp_path / "drawn.png", str(tmp_path / "image.png"), found=found, names=dict(enumerate("abc")))
    drawn = np.asarray(Image.open(tmp_path / "drawn.png").convert("RGB")).astype(int)
    height = drawn.shape[0]
    row = drawn[round(0.6 * height), 10:-10]  # through the box, below its label
    assert (np.abs(row - colour).max(axis=1) > 100).sum() >= 4, "both sides of the box"


def test_only_scores_that_are_asked_for_are_drawn(tmp_path: Path) -> None:
    Image.new("RGB", (100, 100)).save(tmp_path / "image.png")
    found = [{"bbox": [10, 10, 50, 50], "category_id": 0, "score": score} for score in (0.2, 0.5)]
    sizes = {}
    for least in (0.1, 0.3, 0.9):
        path = tmp_path / f"{least}.png"
        draw_detections(path, str(tmp_path / "image.png"), found=found, names={0: "a"}, min_score=least)
        sizes[least] = path.read_bytes()
    assert len({*sizes.values()}) == 3


def test_no_text_is_cut_off(tmp_path: Path) -> None:
    """Whatever the layout makes of it: a margin is left on every side."""
    figure = Figure(figsize=(2, 1))
    figure.subplots().imshow(np.zeros((4, 4)))
    figure.suptitle("a title that is far wider than the page, and\nhas a second line")
    drawn = np.asarray(Image.open(write_figure(figure, tmp_path / "a.png")).convert("L"))
    for edge in (drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1]):
        assert (edge == 255).all()


def test_columns_of_a_legend() -> None:
    assert legend_columns(["a"] * 10, inches=8, points=7) == 10
    assert legend_columns(["a" * 60] * 10, inches=5, points=7) == 1
    assert legend_columns([], inches=5, points=7) == 1
