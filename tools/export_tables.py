"""Write the comparison of the runs below a folder as a table, with costs and verdicts.

    python tools/export_tables.py runs/demo --format md
    python tools/export_tables.py runs/demo --format latex --out table.tex
    python tools/export_tables.py runs/demo --format html --out report.html    # --no-images: charts alone
    python tools/export_tables.py runs/scaling --format scaling --out scaling.md    # and the picture scaling.png

Reads the runs' records and per-image results; records that it cannot read or leaves out are listed. What intervals, p
and verdicts mean is in docs/statistics.md.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from benchmark.compare import RESAMPLES
from benchmark.report import Format
from engine.launch import parse
from mae_transfer.tasks import TASKS


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags of the export."""

    runs: Annotated[Path, tyro.conf.Positional]
    """Folder that holds runs, at any depth."""
    format: Format = "md"
    """Markdown for GitHub, tidy CSV with one number per line, JSON, LaTeX with booktabs, a page with pictures, or
    transfer against model size and samples seen in pre-training (Markdown, and with --out the picture beside it)."""
    images: bool = True
    """Pictures that show images of the data in the page; without them it can be passed on where the data may not."""
    resamples: int = RESAMPLES
    """Resamples of the test images, drawn for all runs of a task alike; 0: intervals over seeds alone."""
    out: Path | None = None
    """File to write; printed unless given."""


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed."""
    args = parse(Args, argv, doc=__doc__)
    try:
        if args.resamples < 0 or args.resamples == 1:
            raise ValueError(f"--resamples {args.resamples}: give 2 or more (1,000 is plenty), or 0 for none.")
        if not args.runs.is_dir():
            raise FileNotFoundError(f"{args.runs}: no such folder; give one that holds runs.")
        # here, since they take most of the time of an answer that needs none of them
        from benchmark.compare.comparison import compare
        from benchmark.compare.records import open_store
        from benchmark.report.export import EXPORTS, write_export
        from benchmark.report.html import to_html
        from benchmark.report.scaling import write_scaling
        from benchmark.report.tables import record_lines

        comparison = compare(open_store(args.runs, TASKS), resamples=args.resamples)
        text = to_html(comparison, images=args.images) if args.format == "html" else EXPORTS[args.format](comparison)
        if args.out is None:
            print(text, end="")
        elif args.format == "scaling":
            print(*write_scaling(args.out, text, comparison), sep="\n")
        else:
            print(write_export(args.out, text, comparison.store))
        if args.format == "csv":  # numbers alone: what was left out is said beside them
            print("\n".join(record_lines(comparison)), file=sys.stderr)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
