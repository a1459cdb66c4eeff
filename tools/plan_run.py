"""What a recipe needs before it is run: parameters, MACs, memory, the batch per GPU that fits, hours.

    python tools/plan_run.py vitdet_large --gpus 64 --gpu-memory 32 --images 117266
    python tools/plan_run.py train_det small --gpus 1 --gpu-memory 8 --activation-checkpointing
    python tools/plan_run.py pretrain mae_large --repeats 4 --gpus 8 --gpu-memory 40 --images 1281167

A training tool (pretrain, train_cls, train_det, train_seg) may stand before the recipe; without one the recipes of that
name of all tools are planned. With MAE's ViT-L and ViT-H come the hours that its authors published, which are of other
hardware than GPUs.

Nothing is allocated: a training step runs on fake tensors, by the kernels of a GPU (engine/memory/plan.py says what is
not counted). perf/plan_memory.py compares the memory with that of measured steps.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import tyro

from engine.flags import parse_with_config
from engine.launch import fail
from engine.spec import TaskSpec, of_tool, recipes_of, spec_for
from mae_transfer.tasks import TASKS


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags of a plan."""

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """Name of a recipe of any training tool, or of the tool before it; its flags may follow."""
    gpus: int = 1
    """How many GPUs train together."""
    gpu_memory: float = 80.0
    """GiB of each that a run may take."""
    images: int | None = None
    """Size of the training set, for recipes whose length is in epochs."""
    classes: int | None = None
    """Classes of the head; ImageNet's 1000, COCO's 80 or ADE20K's 150 unless given."""
    boxes_only: bool = False
    """Detection without masks."""
    tflops: float | None = None
    """Rate of a GPU in TFLOP/s for that precision, from its data sheet; without it no hours are estimated."""
    utilisation: float = 0.35
    """Share of that rate which training reaches: an assumption of yours, not measured."""


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 it fits, 1 it does not or something is wrong."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        tools, words = _tools(argv)
        for number, specs in enumerate(tools):
            args, config = parse_with_config(Args, recipes_of(specs), words, doc=__doc__)
            print("\n".join([*[""] * bool(number), *plan(args, config, spec_for(specs, config))]), flush=True)
    except (ValueError, OSError) as error:
        return fail(error)
    return 0


def plan(args: Args, config: Any, spec: TaskSpec) -> list[str]:
    """Return the plan as lines. Raises ValueError where nothing fits or the flags make no sense."""
    from backbones.attention import gpu_kernels
    from engine.memory.plan import fit_into
    from engine.memory.report import GIB, Devices, lines
    from pretraining.mae.published_hours import published_hours

    if args.gpus < 1 or args.gpu_memory <= 0:
        raise ValueError(f"--gpus {args.gpus} --gpu-memory {args.gpu_memory:g}: both must be above zero.")
    run = replace(config.run, accumulate=1)
    config = spec.followed(replace(config, run=run), args.recipe)
    assert spec.plan is not None
    precision = "bf16-mixed" if run.precision == "auto" else run.precision
    shards = args.gpus if run.strategy == "fsdp" else 1
    memory = round(args.gpu_memory * GIB)
    build = spec.plan(config, classes=args.classes or spec.classes, masks=not args.boxes_only)
    with gpu_kernels():
        fit, planned = fit_into(
            build,
            batch_size=run.batch_size,
            memory=memory,
            devices=args.gpus,
            precision=precision,
            shards=shards,
            least=spec.least_batch,
        )
    devices = Devices(
        gpus=args.gpus, memory=memory, precision=precision, tflops=args.tflops, utilisation=args.utilisation
    )
    told = lines(planned, fit, devices, images=args.images, shards=shards)
    return [f"{spec.tool} {args.recipe}", *told, *published_hours(config)]


def _tools(argv: Sequence[str]) -> tuple[list[tuple[TaskSpec, ...]], list[str]]:
    """Return the tasks to plan, those of each tool together, and the command line without a tool's name before it."""
    tools = tuple(dict.fromkeys(spec.tool for spec in TASKS.values() if spec.plan is not None))
    if argv and argv[0] in tools:
        return [of_tool(TASKS, argv[0])], list(argv[1:])
    for word in argv:
        if having := [tool for tool in tools if word in recipes_of(of_tool(TASKS, tool))]:
            return [of_tool(TASKS, tool) for tool in having], list(argv)
    return [tuple(TASKS.values())], list(argv)


if __name__ == "__main__":
    raise SystemExit(main())
