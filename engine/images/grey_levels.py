"""Grey levels of more than 8 bits as 8: which number of a file is white.

* Unsigned integers of 12 or 16 bits: the highest number of so many bits, as PNG and TIFF say. 12 bits stored in 16 are
  dark by that.
* PGM: the highest value that the file declares.
* Other integers and floats declare nothing. White is 1 (of floats), 255, or 65535 (32767 of signed 16 bits): the lowest
  that no number exceeds by more than one of its own 8-bit steps, so that what a resampling or a codec left above white
  is clipped. Refused is what this cannot decide: numbers below 0 by more than such a step (pixels of -1 to 1, or
  Hounsfield units), numbers above the highest white, and fractions that use less than a 16th of their white (1.3 may be
  a bright pixel of 0 to 1, or a black one of 0 to 255).
* NaN is black, infinity white.
"""

from typing import NamedTuple

import numpy as np

DIM = 1 / 16  # of white: 12 bits in 16


class GreyLevels(NamedTuple):
    """An image of 8 bits, and how it came to be."""

    level_HW: np.ndarray
    """uint8."""
    white: int
    """The number that became 255."""
    highest: float
    """The highest number as a share of white."""


def grey_to_8_bits(values_HW: np.ndarray, whites: tuple[int, ...], *, inverted: bool = False) -> GreyLevels:
    """Return the image by the rule above; `inverted` where 0 is white.

    `whites` are the numbers that may be white, the lowest first: one where the file declares it. Raises ValueError for
    what the rule cannot decide.
    """
    whole = np.issubdtype(values_HW.dtype, np.integer)
    finite = values_HW if whole else values_HW[np.isfinite(values_HW)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    white = _chosen(whites, low, high, fractions=not whole and bool((finite != np.floor(finite)).any()))
    if whole and high <= white and low >= 0:  # few numbers: each is scaled once
        level_HW = _scaled(np.arange(int(high) + 1), white)[values_HW]
    else:
        level_HW = _scaled(values_HW, white)
    return GreyLevels(255 - level_HW if inverted else level_HW, white, high / white)


def _scaled(values: np.ndarray, white: int) -> np.ndarray:
    number = np.nan_to_num(values.astype(np.float64))
    level: np.ndarray = (number.clip(0, white) * (255.0 / white)).round().astype(np.uint8)
    return level


def _chosen(whites: tuple[int, ...], low: float, high: float, *, fractions: bool) -> int:
    """Return the number that is white for an image of numbers from `low` to `high`."""
    white = next((white for white in whites if high <= white + white / 255), None)
    way_out = "save it as 8 or 16 bits, unsigned, with black at 0 and white at 255 or 65535"
    if white is None:
        raise ValueError(f"grey levels up to {high:g}, and the file does not say which is white; {way_out}")
    if low < -white / 255:
        raise ValueError(f"grey levels from {low:g} to {high:g}, and the file does not say which is black; {way_out}")
    lower = [other for other in whites if other < white]
    if fractions and lower and high <= white * DIM:
        raise ValueError(f"grey levels up to {high:g} with fractions: white may be {white} or {lower[-1]}; {way_out}")
    return white
