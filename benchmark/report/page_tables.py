"""The table of differences as a page has it: in two, so that verdicts are seen without scrolling sideways."""

from collections.abc import Sequence

from benchmark.compare.comparison import Comparison
from benchmark.report.names import title
from benchmark.report.tables import Grid, difference_grid

_OF_BOTH = ("task", "metric", "against")
_ACTED_ON = ("difference", "95 % interval", "seeds", "verdict", "to settle it")
VERDICT_CAPTION = (
    "{0} minus each other arm, paired by seed and by image: mean and standard deviation over seeds, 95 % interval over "
    "seeds and test images, and the verdict on the sentence before it. Verdicts are on the first metric of each task."
)
TESTS_CAPTION = (
    "The tests behind the verdicts on {0} minus each other arm: p of no difference, exact p by permutation of the "
    "seeds (with the smallest that so many seeds can give), p after Holm's correction over the tasks and for declared "
    "looks, declared margin, p of a difference as large as that (corrected alike), and the parts of the mean's "
    "variance. No images: the interval speaks of the seeds alone."
)


def verdict_grids(comparison: Comparison) -> tuple[Grid, Grid]:
    """Return the table of differences as two that fit a page: what a reader acts on, and the tests behind it."""
    whole, claim = difference_grid(comparison), title(comparison.claim)
    tests = [name for name in whole.head if name not in (*_OF_BOTH, *_ACTED_ON)]
    return (
        _columns(whole, (*_OF_BOTH, *_ACTED_ON), VERDICT_CAPTION.format(claim)),
        _columns(whole, (*_OF_BOTH, *tests), TESTS_CAPTION.format(claim)),
    )


def _columns(grid: Grid, names: Sequence[str], caption: str) -> Grid:
    places = [grid.head.index(name) for name in names]
    rows = tuple(tuple(row[place] for place in places) for row in grid.rows)
    return Grid(caption=caption, head=tuple(names), rows=rows)
