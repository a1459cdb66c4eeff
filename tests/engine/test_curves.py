"""The picture of a run's losses, rate and metrics."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from engine.curves import _draw, draw_curves, read_series

ROWS = "step,name,value\n1,loss_cls,0.5\n1,loss,0.9\n1,lr,0.001\n1,images_per_second,12\n2,loss_cls,0.4\n2,loss,0.8\n"


def test_series_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(ROWS + "2,val/top1,50\n")
    series = read_series(path)
    assert series["loss"] == ([1, 2], [0.9, 0.8]) and series["val/top1"] == ([2], [50.0])


def test_a_panel_for_losses_rate_and_metrics(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(ROWS)
    assert draw_curves(path, tmp_path / "a.png") == [tmp_path / "a.png"]
    path.write_text(ROWS + "2,val/top1,50\n")
    assert draw_curves(path, tmp_path / "b.png") == [tmp_path / "b.png"]
    sizes = [np.asarray(Image.open(tmp_path / name)).shape[1::-1] for name in ("a.png", "b.png")]
    assert sizes == [(1000, 360), (1500, 360)]  # two and three panels of 5 by 3.6 inches at 100 dots
    assert (np.asarray(Image.open(tmp_path / "b.png").convert("L")) < 128).mean() > 0.002


def test_probes_of_features_have_panels_of_their_own(tmp_path: Path) -> None:
    """Losses, rate, validation; top-1 of both probes, rank and spread: four panels and three below them."""
    path = tmp_path / "metrics.csv"
    names = ("top1", "probe_knn", "probe_linear", "probe_rank", "probe_spread")
    path.write_text(ROWS + "1,grad_norm,1\n" + "".join(f"2,val/{name},50\n" for name in names))
    draw_curves(path, tmp_path / "a.png")
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
    assert pixels.shape == (720, 2000)
    assert pixels[380:, 1540:].min() == 255  # the eighth place is empty


@pytest.mark.parametrize(("last", "scale"), [(0.09, "log"), (0.2, "linear")])
def test_the_axis_is_logarithmic_from_a_decade_on(last: float, scale: str) -> None:
    panel = Figure().subplots()
    _draw(panel, {"loss": ([1, 2], [0.9, last])}, "loss", logarithmic=True)
    assert panel.get_yscale() == scale


def test_losses_below_zero_and_nothing_to_draw(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    assert draw_curves(path, tmp_path / "a.png") == []
    path.write_text("step,name,value\n")
    assert draw_curves(path, tmp_path / "a.png") == []
    path.write_text("step,name,value\n1,loss,-0.5\n2,loss,nan\n")
    assert draw_curves(path, tmp_path / "a.png") == [tmp_path / "a.png"]


def test_a_broken_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(ROWS + "3,loss\n")
    with pytest.raises(ValueError, match=r"metrics\.csv: line 8 is no step, name and value: 3,loss"):
        read_series(path)
