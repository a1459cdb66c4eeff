"""Grey levels of more than 8 bits as 8: which number of a file is white.

* Unsigned integers of 12 or 16 bits: the highest number of so many bits, as PNG and TIFF say. 12 bits stored in 16 are
  dark by that.
* PGM: the highest value that the file declares.
* Integers of 32 bits, signed ones of 16, and floats declare nothing. White is 1 (floats alone), 255 or 65535: the
  lowest that no number exceeds by more than one of its own 8-bit steps, so that what a resampling or a codec left above
  white is clipped. Refused is what this cannot decide: numbers below 0 by more than such a step (pixels of -1 to 1, or
  Hounsfield units), above 65535, and fractions that use less than a 16th of their white (1.3 may be a bright pixel of 0
  to 1, or a black one of 0 to 255).
* NaN is black, infinity white.
"""

import numpy as np

DIM = 1 / 16  # of white: 12 bits in 16
WHITES = (1, 255, 65535)


def grey_to_8_bits(values_HW: np.ndarray, white: int | None, *, inverted: bool = False) -> tuple[np.ndarray, float]:
    """Return (H, W) uint8, and the highest number as a share of white; `inverted` where 0 is white.

    `white` is the number that the file declares, None for none. Raises ValueError by the rule above.
    """
    whole = np.issubdtype(values_HW.dtype, np.integer)
    finite = values_HW if whole else values_HW[np.isfinite(values_HW)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if white is None:
        white = _chosen_white(low, high, whole=whole, fractions=not whole and bool((finite != np.floor(finite)).any()))
    if whole and high <= white and low >= 0:  # few numbers: each is scaled once
        level_HW = _scaled(np.arange(int(high) + 1), white)[values_HW]
    else:
        level_HW = _scaled(values_HW, white)
    return (255 - level_HW if inverted else level_HW), high / white


def _scaled(values: np.ndarray, white: int) -> np.ndarray:
    number = np.nan_to_num(values.astype(np.float64))
    level: np.ndarray = (number.clip(0, white) * (255.0 / white)).round().astype(np.uint8)
    return level


def _chosen_white(low: float, high: float, *, whole: bool, fractions: bool) -> int:
    candidates = [white for white in WHITES if not whole or white > 1]
    white = next((white for white in candidates if high <= white + white / 255), None)
    way_out = "save it as 8 or 16 bits, unsigned, with black at 0 and white at 255 or 65535"
    if white is None:
        raise ValueError(f"grey levels up to {high:g}, and the file does not say which is white; {way_out}")
    if low < -white / 255:
        raise ValueError(f"grey levels from {low:g} to {high:g}, and the file does not say which is black; {way_out}")
    if fractions and 1 < high <= white * DIM:
        lower = WHITES[WHITES.index(white) - 1]
        raise ValueError(f"grey levels up to {high:g} with fractions: white may be {white} or {lower}; {way_out}")
    return white
