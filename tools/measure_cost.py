"""What a trained run takes when it is used: latency, throughput, memory and size, measured on this machine.

    python tools/measure_cost.py runs/cls photos/
    python tools/measure_cost.py runs/det photos/ --batch 4 --calls 10 --threads 1

Times calls on one image and on a batch of `--batch`, from decoded and resized images to answers; the first calls
(`--warm-up`) are kept apart. What came out goes into RUN/record.json, section `use`, with the device, threads,
arithmetic and image size beside it, and from there into the tables (tools/export_tables.py). A measurement of the same
under the same conditions takes the place of the earlier one. Run it on an idle machine: another program changes the
numbers, and nothing tells.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from backbones.weights.declaration import TrustStart
from engine.channels import channels_of
from engine.config import Device
from engine.images.file import allow_megapixels
from engine.launch import fail, parse
from engine.records.record import read_record
from mae_transfer.tasks import TASKS


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags of a measurement."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a completed run."""
    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    """Image files, folders, or glob patterns in quotes; the first are taken, again where they are too few."""
    batch: int = 8
    """Images of a call, beside calls on one image."""
    calls: int = 20
    """Timed calls of each batch."""
    warm_up: int = 5
    """Calls before them, which are kept apart."""
    threads: int | None = None
    """Threads of operations on the CPU; PyTorch's own choice unless given."""
    max_megapixels: int | None = None
    """Read images of up to so many megapixels; the run's limit unless given."""
    device: Device = "auto"
    trust_pickle: TrustStart = False


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed."""
    args = parse(Args, argv, doc=__doc__)
    try:
        channels = channels_of(read_record(args.run).config, args.run)
        from engine.records.use import use_lines
        from engine.runs.predict import images_named
        from engine.runs.trained import On
        from engine.runs.use import Wanted, measure_use

        allow_megapixels(args.max_megapixels)
        wanted = Wanted(batch=args.batch, calls=args.calls, warm_up=args.warm_up, threads=args.threads)
        on = On(device=args.device, trust_pickle=args.trust_pickle)
        found = measure_use(args.run, TASKS, images_named(args.images, channels), on, wanted=wanted, say=print)
    except (ValueError, OSError) as error:
        return fail(error)
    print("\n".join(use_lines(found)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
