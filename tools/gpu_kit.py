"""Check and measure what a GPU does with all of this, as one table: docs/gpu.md has the rows.

    python tools/gpu_kit.py --minutes 10 --out runs/gpu
    python tools/gpu_kit.py --out runs/gpu_small --device cpu

Each row runs in a process of its own with its share of the minutes. OUT/kit.md and OUT/kit.json are rewritten after
every row, OUT/rows has what the rows printed. Called again with the same --out, it keeps the rows that came to their
end and runs the others. Without a GPU the small form runs: tiny models and few steps, and what needs CUDA says so.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = str(Path(__file__).resolve().parents[1])
sys.path[:0] = [] if ROOT in sys.path else [ROOT]  # where the project is copied, not installed


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """A table of what a GPU does."""

    out: Path
    """Folder of the table; rows that it holds are kept."""
    minutes: float = 10.0
    """For all rows together; each has its share of what is left."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """`cpu` runs the small form, and so does `auto` where there is no GPU."""


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 every row ran that can here, 1 not so, 130 interrupted."""
    from engine.launch import fail, parse
    from perf.gpu.kit import carry_out

    arguments: Arguments = parse(Arguments, argv, doc=__doc__)
    try:
        if arguments.minutes <= 0:
            raise ValueError(f"--minutes {arguments.minutes:g}: it must be above zero.")
        return carry_out(arguments.out.resolve(), minutes=arguments.minutes, device=arguments.device)
    except (ValueError, OSError) as error:
        return fail(error)


if __name__ == "__main__":
    raise SystemExit(main())
