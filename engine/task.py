"""What the loop asks of a task. A task holds a built model and its data; the loop knows nothing else of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning_fabric import Fabric
from torch import nn

from backbones.param_groups import ParamGroup
from backbones.weights.declaration import InitialWeights
from backbones.weights.loader import LoadReport
from engine.config import OptimConfig
from engine.records.results_file import ImageResult


class ImageData(Protocol):
    """A finite, indexed data set. A sample may raise UnreadableImageError; the loop counts it and takes another.

    Random augmentation draws from Python's, NumPy's or PyTorch's global generator, which the loader seeds per sample.
    """

    def __len__(self) -> int:
        """Number of samples."""

    def __getitem__(self, index: int) -> Any:
        """The sample, in whatever form the task's `collate` takes."""

    def image_id(self, index: int) -> str:
        """A name for messages and per-image results that people can find the image by."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a record says of a task."""

    data: str
    """Folder of the data."""
    train_split: str
    val_split: str
    train_images: int
    val_images: int
    architecture: dict[str, Any]
    """Of the backbone."""
    weights: LoadReport
    """What the backbone started from."""
    init: InitialWeights | None
    """What was declared of it."""
    normalisation: dict[str, tuple[float, ...]] | None = None
    """Mean and std (`mean`, `std`, one per channel) that the pixels are normalised with."""
    data_notes: tuple[str, ...] = ()
    """What was counted and dropped while the annotations were read."""
    flops_per_image: int | None = None
    """MACs of one forward pass of what is trained on one sample, as fvcore counts them.

    Of labels, boxes and segments that is the backbone alone; else all of the model (MoCo v3: on both views)."""
    frozen_flops_per_image: int = 0
    """MACs of what is frozen and so has no backward pass, on the same: a tokenizer, a momentum encoder."""
    views_per_image: int = 1
    """Samples that a loaded image counts as: its crops, each by itself."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What else makes the data what they are: the classes."""
    counted: tuple[str, ...] = ()
    """Fields of engine.config.NOT_IDENTITY that the metrics of this task depend on, and no resumption changes."""
    labels: dict[str, Any] = field(default_factory=dict)
    """What predictions are written with beside the classes, where that is not the same for all data."""


class Task(Protocol):
    """A model with its data, its evaluation and its pictures."""

    @property
    def name(self) -> str:
        """classification, detection, segmentation, mae, supervised."""

    @property
    def primary_metric(self) -> str:
        """Which of `score`'s metrics tables lead with."""

    @property
    def model(self) -> nn.Module:
        """In training mode `model(batch)` returns named losses, scalars to be summed.

        A scalar among them that needs no gradient is logged and not summed: an accuracy, a sign of collapse.
        """

    @property
    def train_data(self) -> ImageData:
        """What is trained on."""

    @property
    def val_data(self) -> ImageData:
        """What is evaluated on."""

    @property
    def facts(self) -> Facts:
        """What the record says of the task."""

    @staticmethod
    def collate(samples: Sequence[Any]) -> Any:
        """A batch from samples; the loop moves its tensors to the device.

        Without `self`: loader processes get this function, and with it whatever it holds.
        """

    def param_groups(self, optim: OptimConfig) -> Sequence[ParamGroup]:
        """Every trainable parameter in exactly one group."""

    def predict(self, batch: Any) -> list[ImageResult]:
        """One result per image of a batch of val_data, by `self.model`, which is in eval mode, without gradients."""

    def score(self, results: Sequence[ImageResult]) -> dict[str, float]:
        """Metrics by name from the results of all validation images."""

    def draw(self, results: Sequence[ImageResult], folder: Path) -> list[Path]:
        """Write a few pictures (PNG) of predictions beside the ground truth and return their paths."""

    def finish(self, folder: Path) -> list[Path]:
        """Write what the run leaves besides its record, `leave_backbone`'s file first; return the paths."""


@runtime_checkable
class LeavesDecoding(Protocol):
    """What training data have besides that may leave the decoding of images to the device."""

    @property
    def decoded_on_device(self) -> bool:
        """Whether they do."""


@runtime_checkable
class StepsAlike(Protocol):
    """What a task has besides whose training steps may all be the same operations on the same shapes."""

    @property
    def steps_alike(self) -> bool:
        """Whether they are. Then every parameter gets a gradient in every step, or in none."""


def steps_alike(task: "Task") -> bool:
    """Return whether all training steps of a task are the same operations on the same shapes, as it declares."""
    return isinstance(task, StepsAlike) and task.steps_alike


@runtime_checkable
class WritesStart(Protocol):
    """What a task has besides that can go on from the training state of other code."""

    def write_start(self, out: Path) -> None:
        """Write the checkpoint in `out` that the run goes on from; nothing where it is under way, or begins anew."""


@runtime_checkable
class Watches(Protocol):
    """What a task has besides where its model gives numbers to watch that cost a wait for the device."""

    def watch(self, due: bool) -> None:
        """Say whether the next step's numbers are logged."""


class FeatureScores(Protocol):
    """Probes of the features of the ViT that learns, which change nothing of the run."""

    def every(self, total: int) -> int:
        """Return after how many steps an evaluation is due in a run of `total` steps, where nothing else says it."""

    def __call__(self, fabric: Fabric) -> dict[str, float]:
        """Return the metrics by name, by the weights as they are."""


@runtime_checkable
class ProbesFeatures(Protocol):
    """What a task has besides where features may be probed at every evaluation."""

    @property
    def probe(self) -> FeatureScores | None:
        """None where they are not."""


@runtime_checkable
class ActsAfterSteps(Protocol):
    """What a task has besides where its model changes otherwise than by the optimiser: a momentum encoder follows."""

    def after_step(self, step: int, total: int) -> None:
        """Act on the weights that the optimiser left; `step` of `total` steps are done.

        Called before the state is saved or evaluated. Parameters are shards in a sharded run.
        """
