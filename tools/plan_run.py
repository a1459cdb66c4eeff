"""What a recipe needs before it is run: parameters, multiply-adds, memory, the batch per GPU that fits, hours.

    python tools/plan_run.py vitdet_large --gpus 64 --gpu-memory 32 --images 117266
    python tools/plan_run.py small --task train_det --gpus 1 --gpu-memory 8 --activation-checkpointing
    python tools/plan_run.py mae_large --task pretrain --repeats 4 --gpus 8 --gpu-memory 40 --images 1281167

With MAE's ViT-L and ViT-H come the hours that its authors published, which are of other hardware than GPUs.

Nothing is allocated: a training step runs on fake tensors, by the kernels of a GPU (engine/plan.py says what is not
counted). benchmarks/plan_memory.py compares the memory with that of measured steps.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from backbones.attention import gpu_kernels
from classification import plan as classification
from classification.config import ClassificationConfig
from classification.recipes import RECIPES as CLASSIFICATION
from detection import plan as detection
from detection.config import DetectionConfig
from detection.recipes import RECIPES as DETECTION
from engine.config import Precision
from engine.launch import TaskConfig, choose_recipe, fail, parse
from engine.plan import Plannable, fit_into
from engine.plan_report import GIB, Devices, lines
from pretraining import plan as pretraining
from pretraining.mae import MaskTokenIn
from pretraining.moco_config import MoCoConfig
from pretraining.published_hours import published_hours
from pretraining.recipes import RECIPES as PRETRAINING
from pretraining.target import TargetKind
from segmentation import plan as segmentation
from segmentation.config import SegmentationConfig
from segmentation.recipes import RECIPES as SEGMENTATION

RECIPES: dict[str, Mapping[str, Callable[[], TaskConfig]]] = {
    "pretrain": PRETRAINING,
    "train_cls": CLASSIFICATION,
    "train_det": DETECTION,
    "train_seg": SEGMENTATION,
}
CLASSES = {ClassificationConfig: 1000, DetectionConfig: 80, SegmentationConfig: 150}  # ImageNet, COCO, ADE20K


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags of a plan."""

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """Name of a recipe of any training tool."""
    task: Literal["pretrain", "train_cls", "train_det", "train_seg"] | None = None
    """The tool whose recipe it is, where several have one of that name."""
    gpus: int
    """How many GPUs train together."""
    gpu_memory: float
    """GiB of each that a run may take."""
    images: int | None = None
    """Size of the training set, for recipes whose length is in epochs."""
    classes: int | None = None
    """Classes of the head; ImageNet's 1000, COCO's 80 or ADE20K's 150 unless given."""
    boxes_only: bool = False
    """Detection without masks."""
    mask_ratio: float | None = None
    """MAE: share of patches hidden; this and the next four are the recipe's unless given."""
    mask_token: MaskTokenIn | None = None
    """MAE: where mask tokens stand in for hidden patches."""
    target: TargetKind | None = None
    """MAE: what is predicted."""
    repeats: int | None = None
    """MAE: crops of every loaded image."""
    tokenizer: Path | None = None
    """BEiT, and MAE with target tokens: the tokenizer.safetensors; without it one of the usual size stands in."""
    batch_size: int | None = None
    """Images per step over all GPUs; the recipe's unless given."""
    strategy: Literal["ddp", "fsdp"] | None = None
    """Each GPU holds the whole model (ddp), or a share of weights, gradients and moments (fsdp); the recipe's unless
    given."""
    activation_checkpointing: bool = False
    """Keep one tensor per ViT block and compute the rest again, as some recipes do anyway."""
    precision: Precision = "bf16-mixed"
    """Arithmetic of the forward pass."""
    ema_decay: float | None = None
    """Keep the exponential moving average of the weights, too; the recipe's unless given."""
    tflops: float | None = None
    """Rate of a GPU in TFLOP/s for that precision, from its data sheet; without it no hours are estimated."""
    utilisation: float = 0.35
    """Share of that rate which training reaches: an assumption of yours, not measured."""


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 it fits, 1 it does not or something is wrong."""
    args = parse(Args, argv, doc=__doc__)
    try:
        print("\n".join(plan(args)))
    except (ValueError, OSError) as error:
        return fail(error)
    return 0


def plan(args: Args) -> list[str]:
    """Return the plan as lines. Raises ValueError where nothing fits or the flags make no sense."""
    if args.gpus < 1 or args.gpu_memory <= 0:
        raise ValueError(f"--gpus {args.gpus} --gpu-memory {args.gpu_memory:g}: both must be above zero.")
    task, config = _named(args)
    run = config.run
    if args.activation_checkpointing:
        run = replace(run, activation_checkpointing=True)
    for name in ("batch_size", "ema_decay", "strategy"):
        if (value := getattr(args, name)) is not None:
            run = replace(run, **{name: value})
    run = replace(run, accumulate=1)
    config = replace(config, run=run, **_choices(config, args))
    build = _builder(config, args)
    precision = "bf16-mixed" if args.precision == "auto" else args.precision
    shares = args.gpus if run.strategy == "fsdp" else 1
    memory = round(args.gpu_memory * GIB)
    with gpu_kernels():
        fit, planned = fit_into(
            build,
            batch_size=run.batch_size,
            memory=memory,
            devices=args.gpus,
            precision=precision,
            shares=shares,
            least=2 if isinstance(config, SegmentationConfig | MoCoConfig) else 1,  # batch norm
        )
    devices = Devices(
        gpus=args.gpus, memory=memory, precision=precision, tflops=args.tflops, utilisation=args.utilisation
    )
    told = lines(planned, fit, devices, images=args.images, shares=shares)
    return [f"{task} {args.recipe}", *told, *published_hours(config)]


def _named(args: Args) -> tuple[str, Any]:
    having = [task for task, recipes in RECIPES.items() if args.recipe in recipes]
    if args.task is None and len(having) > 1:
        raise ValueError(f"recipes called {args.recipe!r} are of {', '.join(having)}; add --task.")
    task = args.task or (having[0] if having else None)
    if task is None:
        known = sorted({name for recipes in RECIPES.values() for name in recipes})
        raise ValueError(f"no recipe is called {args.recipe!r}; there are: {', '.join(known)}.")
    return task, choose_recipe(RECIPES[task], args.recipe)


def _choices(config: Any, args: Args) -> dict[str, Any]:
    """Return the choices of pre-training that were given. Raises ValueError for one that the recipe does not have."""
    names = ("mask_ratio", "mask_token", "target", "repeats", "tokenizer")
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    if lacking := sorted(given.keys() - {field.name for field in fields(config)}):
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in lacking)
        raise ValueError(f"recipe {args.recipe!r} has no use for {flags}.")
    return {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}


def _builder(config: Any, args: Args) -> Callable[[], Plannable]:
    classes = args.classes or CLASSES.get(type(config), 0)
    if isinstance(config, ClassificationConfig):
        return lambda: classification.plannable(config, num_classes=classes)
    if isinstance(config, DetectionConfig):
        return lambda: detection.plannable(config, num_classes=classes, masks=not args.boxes_only)
    if isinstance(config, SegmentationConfig):
        return lambda: segmentation.plannable(config, num_classes=classes)
    return pretraining.builder(config)


if __name__ == "__main__":
    raise SystemExit(main())
