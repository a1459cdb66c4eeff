"""Write the model of a run as ONNX, compared with PyTorch before the file gets its name.

    python tools/export_onnx.py runs/cls --out classifier.onnx
    python tools/export_onnx.py runs/det --out pyramid.onnx

The input `image` is RGB from 0 to 255 in float32, (batch, 3, H, W) at the run's own size; the pixels are normalised
inside. Classification gives logits, segmentation logits of every pixel, detection the maps of backbone and pyramid
(p2, p3, ...): proposals, boxes and masks depend on the image and stay in PyTorch. The run's folder is enough: its data
and the weights that it started from may be gone. Needs onnx, onnxruntime, onnxscript.
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
    opset: int | None = None
    """Version of ONNX's operators; 20 unless given."""
    trust_pickle: TrustStart = False


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed."""
    args = parse(Args, argv, doc=__doc__)
    try:
        read_record(args.run)
        from engine.runs.export import Exports, export_onnx
        from engine.runs.reopen import files_of
        from engine.runs.trained import On, open_trained

        refuse_overwriting([args.out], files_of(args.run))
        opened = open_trained(args.run, TASKS, On(device="cpu", trust_pickle=args.trust_pickle), say=print)
        if not isinstance(opened.trained, Exports):
            raise ValueError(f"{args.run}: a run of task {opened.recorded.spec.name!r}, which has nothing to export.")
        more = {} if args.opset is None else {"opset": args.opset}
        done = export_onnx(opened.trained.exportable(), args.out, **more)
    except (ValueError, OSError, ImportError) as error:
        return fail(error)
    print(f"{done.path}: step {opened.step} of {args.run}, {done.path.stat().st_size / 2**20:.1f} MiB")
    for name, shape in done.shapes.items():
        print(f"  {name} {' x '.join(map(str, shape))}: differs by {done.differences[name]:.1e} of the largest value")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
