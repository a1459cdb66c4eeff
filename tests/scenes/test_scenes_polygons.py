"""Polygons: exact round trip through pycocotools."""

import numpy as np
import pycocotools.mask
from hypothesis import given, settings
from hypothesis import strategies as st

from scenes.polygons import mask_to_polygons


def rasterise(polygons: list[list[float]], height: int, width: int) -> np.ndarray:
    parts = pycocotools.mask.frPyObjects(polygons, height, width)
    return pycocotools.mask.decode(pycocotools.mask.merge(parts)).astype(bool)


def test_single_pixel_hand_worked() -> None:
    mask_HW = np.zeros((5, 6), dtype=bool)
    mask_HW[2, 3] = True
    (polygon,) = mask_to_polygons(mask_HW)
    assert sorted(zip(polygon[0::2], polygon[1::2], strict=True)) == [(3, 2), (3, 3), (4, 2), (4, 3)]


def test_hole_is_cut_in_two() -> None:
    mask_HW = np.ones((7, 7), dtype=bool)
    mask_HW[3, 3] = False
    polygons = mask_to_polygons(mask_HW)
    assert len(polygons) == 2
    np.testing.assert_array_equal(rasterise(polygons, 7, 7), mask_HW)


def test_empty_mask_has_no_polygon() -> None:
    assert mask_to_polygons(np.zeros((4, 4), dtype=bool)) == []


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    fill=st.floats(0.05, 0.95),
)
def test_round_trip_is_exact_for_any_mask(seed: int, height: int, width: int, fill: float) -> None:
    mask_HW = np.random.default_rng(seed).random((height, width)) < fill
    polygons = mask_to_polygons(mask_HW)
    # COCO readers drop polygons of fewer than three points.
    assert all(len(polygon) >= 8 and len(polygon) % 2 == 0 for polygon in polygons)
    if mask_HW.any():
        np.testing.assert_array_equal(rasterise(polygons, height, width), mask_HW)
