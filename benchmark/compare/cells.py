"""Which runs of two arms are compared: by transfer seed, and by pre-training seed too where both are crossed.

A cell is a transfer seed, or (pre-training seed, transfer seed) in a study that crosses them. Random weights and files
of others have no pre-training seed, so their run at transfer seed t stands beside every pre-training's at t.
"""

from collections.abc import Iterable, Mapping

Cell = int | tuple[int, int]


def transfer_of(cell: Cell) -> int:
    """Return the transfer seed."""
    return cell if isinstance(cell, int) else cell[1]


def order(cell: Cell) -> tuple[int, int]:
    """Return what cells are sorted by: transfer seed after pre-training seed."""
    return (-1, cell) if isinstance(cell, int) else cell


def cell_text(cell: Cell) -> str:
    """Return a cell as a sentence or a key has it: `2`, or `0/2` for pre-training 0 and transfer 2."""
    return str(cell) if isinstance(cell, int) else f"{cell[0]}/{cell[1]}"


def paired(first: Mapping[Cell, float], second: Mapping[Cell, float]) -> tuple[dict[Cell, float], tuple[Cell, ...]]:
    """Return the differences of the cells that both arms have, and the cells that one arm alone has, each in order."""
    cells = sorted({cell for values in (first, second) for cell in values}, key=order)
    crossed = any(not isinstance(cell, int) for cell in cells)
    wanted = [cell for cell in cells if not crossed or not isinstance(cell, int)]
    shared = {
        cell: (a, b) for cell in wanted if (a := own(first, cell)) is not None and (b := own(second, cell)) is not None
    }
    matched = {*shared} | {transfer_of(cell) for cell in shared if crossed}
    return {cell: first[a] - second[b] for cell, (a, b) in shared.items()}, tuple(c for c in cells if c not in matched)


def own(values: Mapping[Cell, object], cell: Cell) -> Cell | None:
    """Return where an arm has what stands at `cell`: there, or at the transfer seed alone; None for neither."""
    return next((found for found in (cell, transfer_of(cell)) if found in values), None)


def whole_grid(cells: Iterable[Cell]) -> list[tuple[int, int]]:
    """Return the crossed cells of the largest grid without a gap, the one of more pre-trainings where two are as large.

    Fewer than two pre-trainings or transfer seeds are a grid too.
    """
    by_first: dict[int, set[int]] = {}
    for cell in cells:
        if not isinstance(cell, int):
            by_first.setdefault(cell[0], set()).add(cell[1])
    ranked = sorted(by_first, key=lambda seed: (-len(by_first[seed]), seed))
    grids = [
        (ranked[:n], set.intersection(*(by_first[seed] for seed in ranked[:n]))) for n in range(1, len(ranked) + 1)
    ]
    best = max(grids, key=lambda grid: (len(grid[0]) * len(grid[1]), len(grid[0])), default=([], set[int]()))
    return [(first, second) for first in sorted(best[0]) for second in sorted(best[1])]
