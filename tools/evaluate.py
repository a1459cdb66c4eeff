"""Evaluate the last checkpoint of a run again, on its own validation split or another.

    python tools/evaluate.py runs/cls
    python tools/evaluate.py runs/cls --split test
    python tools/evaluate.py coco --annotations instances_val2017.json --detections detections.json

Prints the metrics and writes RUN/evaluations/SPLIT/: metrics.json, results.jsonl, pictures. The last form prints COCO's
numbers of a COCO results file, made here (RUN/detections.json) or elsewhere, and AP per class.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from backbones.weights.declaration import TrustStart
from engine.config import Device
from engine.images.file import allow_megapixels
from engine.launch import fail, parse
from engine.records.record import read_record
from mae_transfer.tasks import TASKS


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags of evaluation."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run."""
    data: Path | None = None
    """Folder of the data set; the run's own unless given."""
    split: str | None = None
    """Validation split; the run's own unless given."""
    max_megapixels: int | None = None
    """Read images of up to so many megapixels; the run's limit unless given."""
    device: Device = "auto"
    trust_pickle: TrustStart = False


@dataclass(frozen=True, kw_only=True)
class CocoArgs:
    """Flags of the evaluation of a COCO results file."""

    annotations: Path
    """Annotations in COCO's format."""
    detections: Path
    """List of detections in COCO's results format."""


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["coco"]:
        return coco(parse(CocoArgs, argv[1:], doc=__doc__))
    args = parse(Args, argv, doc=__doc__)
    try:
        read_record(args.run)
        from engine.runs.reopen import Asked, reevaluate

        allow_megapixels(args.max_megapixels)
        asked = Asked(
            data=args.data,
            split=args.split,
            device=args.device,
            trust_pickle=args.trust_pickle,
        )
        done = reevaluate(args.run, TASKS, asked, say=print)
    except (ValueError, OSError) as error:
        return fail(error)
    print(f"step {done.step}: " + ", ".join(f"{name} {value:.4f}" for name, value in done.metrics.items()))
    print("\n".join(str(path) for path in (done.folder / "metrics.json", *done.pictures)))
    for warning in done.warnings:
        print(f"warning: {warning}")
    return 0


def coco(args: CocoArgs) -> int:
    """Print the numbers of a results file; return the exit code."""
    from detection.evaluation.rescore import score_files

    try:
        done = score_files(args.annotations, args.detections)
    except (ValueError, OSError) as error:
        return fail(error)
    for note in done.notes:
        print(f"warning: {note}", file=sys.stderr)
    for kind, one in done.scores.items():
        print("\n".join(f"{kind}_{name} {value:.4f}" for name, value in one.summary.items()))
        print("\n".join(f"{kind}_ap of {name} {value:.4f}" for name, value in one.class_ap.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
