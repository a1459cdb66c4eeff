"""Score a trained classification run on ImageNet-A, -R, -Sketch or -C, or on one's own data in their layouts.

    python tools/robustness.py runs/cls folders imagenet-r
    python tools/robustness.py runs/cls corruptions imagenet-c

`folders` is <class>/<image>; where it holds some of the run's classes, only they compete (ImageNet-A and -R: 200).
`corruptions` is <corruption>/<severity>/<class>/<image>; prints top-1 per corruption and severity and their mean. mCE
is not given: it divides by the errors of AlexNet. Writes RUN/robustness/<name of the folder>.json.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from backbones.weights.declaration import TrustStart
from engine.config import Device, ReadingWorkers
from engine.launch import fail, parse
from engine.records.record import read_record
from files.naming import inside, refuse_within
from files.writing import replacing


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags of the evaluation of robustness."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a classification run."""
    layout: Annotated[Literal["folders", "corruptions"], tyro.conf.Positional]
    """How the images are laid out."""
    images: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the images."""
    workers: ReadingWorkers = "auto"
    device: Device = "auto"
    trust_pickle: TrustStart = False


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed."""
    args = parse(Args, argv, doc=__doc__)
    try:
        read_record(args.run)
        from classification.robustness import mean_top1, score_corruptions, score_folder
        from classification.trained import known_by
        from engine.runs.trained import On

        out = inside(args.run, f"robustness/{args.images.resolve().name}.json", source=args.run)
        refuse_within(out, [args.images])
        on = On(device=args.device, trust_pickle=args.trust_pickle)
        known = known_by(args.run, on, resized=args.layout == "folders", workers=args.workers, say=print)
        if args.layout == "folders":
            scored = score_folder(args.images, known)
            values, top1 = asdict(scored), scored.top1
            for line in (*scored.notes, *scored.unreadable):
                print(f"warning: {line}")
        else:
            corruptions = score_corruptions(args.images, known, print)
            top1 = mean_top1(corruptions)
            values = {"top1": top1, "corruptions": [{**asdict(c), "top1": c.top1} for c in corruptions]}
        with replacing(out) as temporary:
            temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    except (ValueError, OSError) as error:
        return fail(error)
    print(f"top1 {top1:.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
