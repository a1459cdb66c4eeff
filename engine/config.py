"""How a run is trained: frozen dataclasses that a recipe fills and the command line overrides.

`as_json` carries any nest of such dataclasses to a record, `files.typed.from_json` back.
"""

import math
import re
from collections.abc import Set
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal, Protocol

from typing_extensions import Doc

from engine.functions import split_name

# marks of a field, for the command line (engine.flags)
BASIC = "basic"
"""A flag that a run usually needs: --help shows it."""
FILE = "file"
"""It names a file or folder."""
CODE = "code"
"""It names a function, as FILE.py:FUNCTION or package.module:FUNCTION, which is run."""
COMPUTED = "computed"
"""No flag: it is computed, or set by flags of other names."""
WITHOUT = "without "
"""Before the names of fields of a part that are no flags there, since others of the configuration take their place."""

Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
DEVICES = re.compile(r"auto|cpu|cuda(:\d+)?")
Workers = int | Literal["auto"]
ReadingWorkers = Annotated[
    Workers, Doc("Processes that read images; `auto` is 0 on a CPU and for a GPU the cores, 16 at most.")
]
Device = Annotated[str, Doc("Where it runs: `auto` (a GPU where there is one), `cpu`, `cuda`, or `cuda:N`, GPU N.")]


def check_device(name: str) -> None:
    """Raise ValueError for what names no device."""
    if not DEVICES.fullmatch(name):
        raise ValueError(f"device is {name!r}; it is auto, cpu, cuda, or cuda:N for GPU N.")


@dataclass(frozen=True)
class Duration:
    """A length of training. Becomes optimiser steps once, when the data set and the batch are known."""

    value: float
    """How many."""
    unit: Literal["steps", "epochs", "samples"] = "steps"
    """Of what: optimiser steps, passes over the training images, or images."""

    @classmethod
    def from_text(cls, text: str) -> "Duration | None":
        """Return what `20epochs`, `500steps`, `1e6samples` or a bare number of steps says; None for `none`.

        Raises ValueError for another text.
        """
        if text.lower() == "none":
            return None
        found = re.fullmatch(r"(.+?)\s*(steps?|epochs?|samples?)?", text.strip())
        try:
            value = float(found[1]) if found else math.nan
        except ValueError:
            value = math.nan
        if found is None or not 0 <= value < math.inf:
            raise ValueError(f"{text!r} is no length; write 500, 500steps, 20epochs or 1e6samples.")
        units: dict[str, Literal["steps", "epochs", "samples"]] = {"st": "steps", "ep": "epochs", "sa": "samples"}
        return cls(value, units[(found[2] or "steps")[:2]])

    def steps(self, *, batch_size: int, dataset_size: int) -> int:
        """Return the optimiser steps that cover the duration, rounded up, exact in its decimals up to 1e-9 steps."""
        if self.value < 0:
            raise ValueError(f"a duration of {self.value} {self.unit} is negative.")
        value = Fraction(str(self.value))  # as it is written: 2.2 * 50,000 is a little above 110,000 in binary
        samples = {"steps": value * batch_size, "epochs": value * dataset_size, "samples": value}
        return math.ceil(round(samples[self.unit] / batch_size, 9))  # 9: 0.1 + 0.2 is no more than 0.3


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """An optimiser with a rule for the learning rate."""

    kind: Literal["adamw", "lars"] = "adamw"
    """AdamW, or LARS (arXiv 1708.03888; momentum 0.9, trust 0.001), which large batches of linear probing use."""
    base_lr: Annotated[float, BASIC]
    """Learning rate at base_batch_size images per step."""
    base_batch_size: int = 256
    """The batch that base_lr is stated for."""
    lr_scaling: Literal["linear", "sqrt", "none"] = "linear"
    """How the learning rate follows the batch: base_lr times batch / base_batch_size, its square root, or not at
    all."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay of the first and second moment; the first is LARS's momentum."""
    weight_decay: float = 0.05
    """Decoupled weight decay of the parameters that are not exempt."""
    layer_decay: Annotated[float, BASIC] = 1.0
    """Layer-wise decay of the learning rate; 1 gives every layer the same."""
    clip_norm: float | None = None
    """Largest gradient norm; None clips nothing."""

    def lr(self, batch_size: int) -> float:
        """Return the peak learning rate for a batch."""
        ratio = batch_size / self.base_batch_size
        return self.base_lr * {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[self.lr_scaling]


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Warm-up, then a decay."""

    kind: Literal["cosine", "step", "poly", "constant"] = "cosine"
    """Shape of the decay."""
    warmup: Duration = Duration(0)
    """Linear warm-up."""
    warmup_start: float = 0.0
    """Share of the peak at the first step of the warm-up."""
    final: float = 0.0
    """Share of the peak at the end, for cosine and poly."""
    milestones: tuple[float, ...] = ()
    """Shares of the run at which `step` multiplies by gamma."""
    gamma: float = 0.1
    """Factor of `step`."""
    power: float = 1.0
    """Exponent of `poly`."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything of a run that is not the task's own."""

    length: Annotated[Duration, COMPUTED]
    """How long to train."""
    batch_size: Annotated[int, BASIC]
    """Images per optimiser step, over all devices and accumulated micro-batches."""
    optim: OptimConfig
    """Optimiser."""
    schedule: ScheduleConfig
    """Learning-rate schedule."""
    seed: Annotated[int, BASIC] = 0
    """Seed of the weights, of the data order, of augmentation and of every random choice in the model."""
    accumulate: int = 1
    """Micro-batches per optimiser step on each device."""
    ema_decay: Annotated[float | None, BASIC] = None
    """Decay per step of the exponential moving average of the weights, which is then evaluated, predicted with and
    exported in place of the last weights; None keeps none."""
    activation_checkpointing: Annotated[bool, BASIC] = False
    """Keep one tensor per transformer block and compute the rest again in the backward pass: less memory, the same
    numbers."""
    compile: Annotated[bool, BASIC] = False
    """Compile the transformer blocks (torch.compile): the same numbers up to rounding, after a minute or more of
    compilation."""
    strategy: Annotated[Literal["ddp", "fsdp"], BASIC] = "ddp"
    """How several processes share the work: each holds the whole model (ddp), or a shard of its weights, gradients and
    moments (fsdp)."""
    device: Annotated[str, BASIC] = "auto"
    """Where the run is computed: `auto` (GPUs where there are some), `cpu`, `cuda`, or `cuda:N`, GPU N alone."""
    deterministic: Annotated[bool, BASIC] = False
    """Let a GPU repeat a run bit for bit where PyTorch has kernels that can, slower ones; docs/gpu.md says what stays
    undetermined."""
    precision: Annotated[Precision, BASIC] = "auto"
    """`auto` is bfloat16 autocast where the device computes it natively, else float32."""
    eval_every: Duration | None = None
    """Evaluate this often; None evaluates at the end alone."""
    save_every: Duration | None = None
    """Save a resumable checkpoint this often; None saves at the end and on interruption."""
    keep_last: int = 2
    """Checkpoints to keep."""
    log_every: int = 20
    """Steps between lines of metrics.csv and the log."""
    augment_function: Annotated[str | None, BASIC, CODE] = None
    """Your own augmentation of training samples, `FILE.py:FUNCTION` or `package.module:FUNCTION`, called with (sample,
    rng) after the recipe's own (docs/data.md)."""
    augment_source: Annotated[str | None, COMPUTED] = None
    """What that is: module:FUNCTION and the sha256 of its file."""
    tracker: Annotated[str, BASIC] = "none"
    """Where numbers go besides metrics.csv and TensorBoard: `none`, `wandb`, `mlflow`, or `module:Class` of a logger
    with Lightning Fabric's interface."""
    workers: Annotated[Workers, BASIC] = "auto"
    """Processes per device that load data; 0 loads in the training process. `auto` is 0 on a CPU and for a GPU its
    share of the cores, 16 at most."""
    eval_batch_size: int = 32
    """Images per evaluation batch on each device. MoCo v3 tells an image from the others of its batch, so that its
    val_loss depends on it."""
    max_unreadable: Annotated[int, BASIC] = 10
    """Distinct unreadable images after which the run stops."""
    max_megapixels: Annotated[int | None, BASIC] = None
    """Largest image that is read, in 10^6 pixels; larger ones are unreadable. None leaves 179. A loader process holds 7
    to 16 bytes per pixel of the image that it reads: 1,000 megapixels take 7 to 16 GB."""

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that make no run."""
        for name in ("batch_size", "accumulate", "keep_last", "log_every", "eval_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("workers", "max_unreadable", "seed"):
            value = getattr(self, name)
            if value != "auto" and value < 0:
                raise ValueError(f"{name} is {value}; it must not be negative.")
        check_device(self.device)
        if self.augment_function is not None:
            split_name(self.augment_function)
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; it must be at least 0 and below 1.")
        if self.strategy == "fsdp" and self.precision == "16-mixed":
            raise ValueError("strategy fsdp does not train in 16-mixed; use bf16-mixed or 32-true.")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by accumulate {self.accumulate}, the recipe's number "
                "of micro-batches; give a --batch-size that is, or choose their size by --max-per-device."
            )


def micro_batches(batch_size: int, most: int, devices: int) -> int:
    """Return the fewest micro-batches of equal size with at most `most` images on each of `devices` devices.

    Raises ValueError where the batch cannot be shared.
    """
    if most < 1:
        raise ValueError(f"--max-per-device {most}: it must be at least 1.")
    if batch_size % devices:
        raise ValueError(
            f"a batch of {batch_size} images cannot be shared by {devices} processes; start a number of processes that "
            "divides it, or give another --batch-size (the learning rate follows by the recipe's rule)."
        )
    share = batch_size // devices
    return next(count for count in range(1, share + 1) if share % count == 0 and share // count <= most)


class TaskConfig(Protocol):
    """The configuration of one task: a frozen dataclass with a `run`."""

    @property
    def run(self) -> RunConfig:
        """How it is trained."""


# what a run may change between its start and its resumption without becoming another run
NOT_IDENTITY = frozenset(
    {
        "activation_checkpointing",
        "augment_function",  # where it lies; augment_source says what it is
        "device",
        "eval_batch_size",
        "keep_last",
        "log_every",
        "max_megapixels",
        "max_unreadable",
        "save_every",
        "strategy",
        "tracker",
        "workers",
    }
)


def as_json(config: Any) -> dict[str, Any]:
    """Return a dataclass as nested plain values."""
    return asdict(config)


def with_defaults(values: dict[str, Any], config: Any) -> dict[str, Any]:
    """Return what `as_json` made of a configuration before some fields were there, with the defaults of these.

    `config` is any configuration of the same kind, as it is now.
    """
    filled = dict(values)
    for f in fields(config):
        now = getattr(config, f.name)
        if f.name in filled:
            if is_dataclass(now) and isinstance(filled[f.name], dict):
                filled[f.name] = with_defaults(filled[f.name], now)
        elif f.default is not MISSING:
            filled[f.name] = as_json(f.default) if is_dataclass(f.default) else f.default
    return filled


def differences(
    old: dict[str, Any],
    new: dict[str, Any],
    path: str = "",
    *,
    without: Set[str] = frozenset(),
    counted: Set[str] = frozenset(),
) -> list[str]:
    """Return `field: old -> new` for every leaf in which two `as_json` results differ.

    NOT_IDENTITY but for `counted` is left out, and the fields called as in `without`.
    """
    found = []
    for name in sorted(old.keys() | new.keys()):
        if name in NOT_IDENTITY - counted or name in without:
            continue
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{path}{name}.", without=without, counted=counted)
        elif _plain(a) != _plain(b):
            found.append(f"{path}{name}: {a} -> {b}")
    return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True, kw_only=True)
class LabelFraction:
    """The part of the training images that a configuration uses; the task's configuration inherits it."""

    label_fraction: Annotated[float | None, BASIC] = None
    """Fraction of the training images that is used (0.01 is 1 %), of each class where an image has one, else with every
    class present where it can be; None uses all."""
    label_seed: int = 0
    """Seed of that choice; it is not the run's, so that runs of several seeds may see the same labels."""

    def check_fraction(self) -> None:
        """Raise ValueError for a fraction that is none."""
        if self.label_fraction is not None and not 0 < self.label_fraction <= 1:
            raise ValueError(
                f"label_fraction is {self.label_fraction:g}; it must be above 0 and at most 1 (1 % is 0.01)."
            )


@dataclass(frozen=True, kw_only=True)
class FeatureProbes:
    """Probes of the features while a ViT trains; the configuration of a task inherits it."""

    probe_data: Annotated[str | None, BASIC, FILE] = None
    """Folder with train/<class>/ and val/<class>/ whose images are probed at every evaluation: k nearest neighbours, a
    linear classifier, rank and spread of the features. Without --eval-every there are then up to 20 evaluations, as
    many as take 3 % of the run's products."""
    probe_images: int = 1000
    """Images of each of its two splits that are used, the same share of every class."""


@dataclass(frozen=True, kw_only=True)
class UnlabelledSplits:
    """Which images are validated on; the configuration of a way of pre-training without labels inherits it."""

    val_split: str = "val"
    """Folder of the validation images, beside train/."""
    held_out: Annotated[float, BASIC] = 0.1
    """Share of the images that is held out for validation where there is no val/; chosen by a digest of their names."""
