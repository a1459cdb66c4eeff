"""Colours of classes: kept, told apart, and legible on what they are written on."""

import numpy as np
import pytest
from matplotlib.colors import TABLEAU_COLORS, to_rgb

from engine.palette import ink_on, lab, relative_luminance, told_apart


def test_lab_by_hand() -> None:
    """sRGB's red in CIELAB (D65) is 53.24, 80.09, 67.20; white is 100, 0, 0."""
    np.testing.assert_allclose(lab(np.array([[1.0, 0, 0], [1, 1, 1]])), [[53.24, 80.09, 67.2], [100, 0, 0]], atol=0.02)


@pytest.mark.parametrize(("count", "least"), [(10, 27), (20, 27), (40, 27), (150, 13), (254, 9)])
def test_colours_are_told_apart(count: int, least: float) -> None:
    """mmseg's colours by chance come within 10 among ten classes, and within 3 among forty."""
    lab_K3 = lab(told_apart(count) / 255)
    far = np.linalg.norm(lab_K3[:, None] - lab_K3[None], axis=2)
    assert far[~np.eye(count, dtype=bool)].min() > least


def test_they_are_kept() -> None:
    np.testing.assert_array_equal(told_apart(300)[:10], told_apart(10))
    tableau = [np.round(255 * np.array(to_rgb(colour))) for colour in TABLEAU_COLORS.values()]
    np.testing.assert_array_equal(told_apart(10), tableau)
    assert told_apart(0).shape == (0, 3) and told_apart(300).dtype == np.uint8


def test_ink_stands_out() -> None:
    for red, green, blue in told_apart(254) / 255:
        own, ink = relative_luminance((red, green, blue)), {"black": 0.0, "white": 1.0}[ink_on((red, green, blue))]
        assert (max(own, ink) + 0.05) / (min(own, ink) + 0.05) > 4.5
