"""Write the model of a run as ONNX, compared with PyTorch before the file gets its name.

    python tools/export_onnx.py runs/cls --out classifier.onnx
    python tools/export_onnx.py runs/det --out pyramid.onnx

The input `image` is RGB from 0 to 255 in float32, (batch, 3, H, W) at the run's own size; the pixels are normalised
inside. Classification gives logits, segmentation logits of every pixel, detection the maps of backbone and pyramid
(p2, p3, ...): proposals, boxes and masks depend on the image and stay in PyTorch. Needs onnx, onnxruntime, onnxscript.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from backbones.weights.declaration import TrustStart
from engine.launch import fail, parse
from engine.records.record import read_record
from files.naming import refuse_overwriting
from mae_transfer.tasks import TASKS


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags of the export."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run."""
    out: Path
    """File to write."""
    data: Path | None = None
    """Folder of the data set; the run's own unless given."""
    opset: int | None = None
    """Version of ONNX's operators; 20 unless given."""
    trust_pickle: TrustStart = False


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed."""
    args = parse(Args, argv, doc=__doc__)
    try:
        read_record(args.run)
        from engine.runs.export import Exports, export_onnx
        from engine.runs.reopen import Asked, files_of, rebuild
        from engine.training.resume import load_model

        rebuilt = rebuild(args.run, TASKS, Asked(data=args.data, trust_pickle=args.trust_pickle), say=print)
        refuse_overwriting([args.out], [rebuilt.checkpoint, *files_of(args.run)])
        if not isinstance(rebuilt.task, Exports):
            raise ValueError(f"{args.run}: a run of task {rebuilt.task.name!r}, which has nothing to export.")
        step = load_model(rebuilt.checkpoint, rebuilt.task.model)
        done = export_onnx(rebuilt.task.exportable(), args.out, **({} if args.opset is None else {"opset": args.opset}))
    except (ValueError, OSError, ImportError) as error:
        return fail(error)
    print(f"{done.path}: step {step} of {args.run}, {done.path.stat().st_size / 2**20:.1f} MiB")
    for name, shape in done.shapes.items():
        print(f"  {name} {' x '.join(map(str, shape))}: differs by {done.differences[name]:.1e} of the largest value")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
