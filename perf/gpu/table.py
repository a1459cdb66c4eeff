"""The rows of the kit, in their order, and the process that carries out one of them.

python -m perf.gpu.table ROW DEVICE OUT
"""

import sys
import traceback
from importlib import import_module
from pathlib import Path

from perf.gpu.row import Ask, Function, NotRun, Row, write_line

ROWS = (
    Row(name="doctor", what="versions, devices, driver", run="machine:doctor", share=3),
    Row(name="rates", what="matrix products against the data sheet, copies", run="machine:rates", share=4),
    Row(name="tests", what="pytest -m gpu", run="runs:tests", share=18, small=False),
    Row(name="mae", what="MAE ViT-B/16 step beside transformers", run="steps:mae", share=6),
    Row(name="classification", what="ViT-B/16 fine-tuning step beside timm", run="steps:classification", share=5),
    Row(name="detection", what="ViTDet-B Mask R-CNN step beside detectron2", run="steps:detection", share=8),
    Row(name="segmentation", what="UPerNet ViT-B step beside mmseg", run="steps:segmentation", share=6),
    Row(name="compile", what="MAE step, blocks compiled or not", run="steps:compiled", share=8, small=False),
    Row(name="batches", what="MAE step by batch", run="steps:batches", share=5),
    Row(name="planner", what="planned memory against measured", run="checks:planner", share=6, small=False),
    Row(name="attention", what="kernel of attention that is taken", run="checks:attention", share=3),
    Row(name="deterministic", what="MAE steps, twice, deterministic or not", run="checks:deterministic", share=4),
    Row(name="processes", what="DDP and FSDP of one process", run="checks:processes", share=4),
    Row(name="loader", what="pretrain.py with loader processes", run="runs:loader", share=12),
    Row(name="study", what="a small study, whose forked runs use CUDA", run="runs:study", share=7, small=False),
    Row(name="profile", what="operations of an MAE step", run="steps:profile", share=4),
)


def carry_out(row: Row, ask: Ask) -> int:
    """Run one row in this process; return 0 where it came to its end, after which its file says so, or why not."""
    module, _, name = row.run.partition(":")
    try:
        function: Function = getattr(import_module(f"perf.gpu.{module}"), name)
        function(ask)
    except NotRun as error:
        reason = str(error)
    except ModuleNotFoundError as error:
        traceback.print_exc()
        reason = f"{(error.name or str(error)).partition('.')[0]} missing"
    except Exception as error:  # whatever it is, the table says it
        traceback.print_exc()
        reason = f"failed: {type(error).__name__}: {error}".strip().splitlines()[0]
    else:
        write_line(ask.file, {"complete": True})
        return 0
    write_line(ask.file, {"reason": reason})
    return 1


def main() -> int:
    """Return the exit code of the row that the command line names."""
    name, device, out = sys.argv[1:]
    row = next(row for row in ROWS if row.name == name)
    return carry_out(row, Ask(name=name, device=device, out=Path(out)))


if __name__ == "__main__":
    sys.exit(main())
