"""Masks as COCO polygons, without loss.

COCO's polygons have no holes and its rasteriser fills between pixel corners, so a polygon here follows the
corners of the mask's border pixels, and a mask with a hole (a ring, or a thing behind another) is cut in two.
"""

import cv2
import numpy as np

# At three times the size every border pixel centre rounds to the pixel corner that it lies next to.
_MAGNIFY = 3


def mask_to_polygons(mask_HW: np.ndarray) -> list[list[float]]:
    """Return polygons [x0, y0, x1, y1, ...] in pixels, whose union rasterises to exactly the bool mask."""
    large = mask_HW.astype(np.uint8).repeat(_MAGNIFY, axis=0).repeat(_MAGNIFY, axis=1)
    contours, tree = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    for contour, (_, _, _, parent) in zip(contours, tree[0] if len(contours) else [], strict=True):
        if parent >= 0:
            left, right = contour[:, 0, 0].min(), contour[:, 0, 0].max()
            cut = round((left + right) / 2 / _MAGNIFY)
            columns = np.arange(mask_HW.shape[1])
            return mask_to_polygons(mask_HW & (columns < cut)) + mask_to_polygons(mask_HW & (columns >= cut))
    return [_corners(contour[:, 0, :]) for contour in contours]


def _corners(contour_N2: np.ndarray) -> list[float]:
    """Return the contour on pixel corners, repeated points left out."""
    points = np.rint(contour_N2 / _MAGNIFY)
    kept = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    return [float(value) for value in kept.ravel()]
