"""What all pictures share: names from outside are drawn as they are written, and none costs a run its numbers."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from files.writing import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 60  # characters, beyond which a name takes the place of the pictures
NO_LETTERS = 0x2E80  # from here on (East Asia, symbols) the font of the figures has no letters
REPLACEMENT = "\ufffd"
MARGIN = 0.05  # inches around text that was left out of the page
HANDLE = 4.8  # of a legend: patch and gaps beside a label, in heights of its letters (matplotlib's defaults)


def label_text(name: object, *, most: int = MOST, keep: Literal["start", "end"] = "start") -> str:
    """Return a name as text for matplotlib: one line, of at most `most` characters, that shows what is written.

    matplotlib takes two dollar signs for a formula, which is drawn as such or stops the drawing, leaves labels that
    begin with `_` out of legends, and cannot draw the bytes of a file name that is no UTF-8.
    """
    shown = "".join(_letter(char) for char in str(name))
    if len(shown) > most:
        shown = f"{shown[: most - 3]}..." if keep == "start" else f"...{shown[3 - most :]}"
    shown = shown.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def legend_columns(labels: Sequence[str], *, inches: float, points: float) -> int:
    """Return how many columns of a legend stand side by side in so many inches, at least 1, in letters of `points`."""
    letters = max((len(label) for label in labels), default=0)
    column = (0.6 * letters + HANDLE) * points / 72  # DejaVu Sans is about 0.6 of its height wide
    return max(1, min(len(labels), int(inches / column)))


def write_figure(figure: "Figure", path: Path, *, dpi: float = 110) -> Path:
    """Write a figure as PNG by a temporary file; its page is enlarged where the layout has left text out of it."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()  # which lays it out
    page, drawn_on = Bbox.from_bounds(0, 0, *figure.get_size_inches()), figure.get_tightbbox()
    whole = Bbox.union([page, drawn_on.padded(MARGIN)])
    with replacing(path) as temporary:
        figure.savefig(
            temporary, dpi=dpi, format="png", bbox_inches=None if _within(drawn_on.extents, page.extents) else whole
        )
    return path


def _within(inner: Iterable[float], outer: Iterable[float]) -> bool:
    """Return whether a box (left, bottom, right, top in inches) lies in another, up to a hundredth of an inch."""
    return all(sign * (a - b) > -0.01 for sign, a, b in zip((1, 1, -1, -1), inner, outer, strict=True))


def drawn(what: str, draw: Callable[[], Iterable[Path]], warn: Callable[[str], None]) -> list[Path]:
    """Return the pictures that `draw` has written; none, with a warning that says why, where it fails."""
    try:
        return list(draw())
    except Exception as error:  # a host's drawing raises nearly anything
        reason = " ".join(str(error).split())[:500]
        warn(f"{what} could not be drawn ({type(error).__name__}: {reason}); the results are complete without.")
        return []


def _letter(char: str) -> str:
    if 0xD800 <= ord(char) < 0xE000 or char == REPLACEMENT:
        return REPLACEMENT
    if ord(char) >= NO_LETTERS:
        return "?"
    return char if char.isprintable() else " "
