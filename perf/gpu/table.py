"""The rows of the kit, in their order, and the process that carries out one of them.

python -m perf.gpu.table ROW MODULE:FUNCTION DEVICE OUT
"""

import sys
import traceback
from importlib import import_module
from pathlib import Path

from perf.gpu.row import Ask, Function, NotRun, Row, write_line

ROWS = (
    Row(name="doctor", what="versions, devices, driver", run="perf.gpu.machine:doctor", share=3),
    Row(name="rates", what="matrix products against the data sheet, copies", run="perf.gpu.machine:rates", share=4),
    Row(name="tests", what="pytest -m gpu", run="perf.gpu.runs:tests", share=18, small=False),
    Row(name="mae", what="MAE ViT-B/16 step beside transformers", run="perf.gpu.steps:mae", share=6),
    Row(
        name="classification",
        what="ViT-B/16 fine-tuning step beside timm",
        run="perf.gpu.steps:classification",
        share=5,
    ),
    Row(name="detection", what="ViTDet-B Mask R-CNN step beside detectron2", run="perf.gpu.steps:detection", share=8),
    Row(name="segmentation", what="UPerNet ViT-B step beside mmseg", run="perf.gpu.steps:segmentation", share=6),
    Row(name="compile", what="MAE step, blocks compiled or not", run="perf.gpu.steps:compiled", share=8, small=False),
    Row(name="batches", what="MAE step by batch", run="perf.gpu.steps:batches", share=5),
    Row(name="planner", what="planned memory against measured", run="perf.gpu.checks:planner", share=6, small=False),
    Row(name="attention", what="kernel of attention that is taken", run="perf.gpu.checks:attention", share=3),
    Row(
        name="flex",
        what="whole images' attention by FlexAttention",
        run="perf.gpu.flex:flex",
        share=4,
        small=False,
    ),
    Row(name="convolutions", what="UPerNet step by layout", run="perf.gpu.convolutions:convolutions", share=4),
    Row(
        name="deterministic",
        what="MAE steps, twice, deterministic or not",
        run="perf.gpu.checks:deterministic",
        share=4,
    ),
    Row(name="processes", what="DDP and FSDP of one process", run="perf.gpu.checks:processes", share=4),
    Row(name="decode", what="JPEGs decoded on the device", run="perf.gpu.decoding:decoding", share=2),
    Row(name="loader", what="pretrain.py with loader processes", run="perf.gpu.runs:loader", share=12),
    Row(
        name="study", what="a small study, whose forked runs use CUDA", run="perf.gpu.runs:study", share=7, small=False
    ),
    Row(name="profile", what="operations of an MAE step", run="perf.gpu.steps:profile", share=4),
)


def carry_out(run: str, ask: Ask) -> int:
    """Call a row's function; return 0 where it came to its end, after which its file says so, or why not."""
    module, _, name = run.partition(":")
    try:
        function: Function = getattr(import_module(module), name)
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


if __name__ == "__main__":
    row, function, device, folder = sys.argv[1:]
    sys.exit(carry_out(function, Ask(name=row, device=device, out=Path(folder))))
