"""The model of a finished run, opened from its folder alone: no data set and no initial weights are needed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar

from lightning_fabric import Fabric
from torch import nn

from backbones.weights.declaration import TrustStart
from backbones.weights.initial import normalisation_of, read_initial
from backbones.weights.normalisation import Normalisation
from engine.device import make_fabric
from engine.records.record import RunRecord
from engine.runs.recorded import Recorded, read_run
from engine.spec import TaskTable
from engine.training.resume import load_model
from files.typed import from_json

V = TypeVar("V")


class TrainedModel(Protocol):
    """What a task makes of a record: a model of random weights that a checkpoint of the run fits.

    It predicts images (engine.runs.predict.Predicts), is exported (engine.runs.export.Exports), or both.
    """

    @property
    def model(self) -> nn.Module:
        """The model."""


@dataclass(frozen=True, kw_only=True)
class On:
    """Where a run is opened."""

    device: str = "auto"
    """As RunConfig.device; the run's own is not asked, which may have been of another machine."""
    trust_pickle: TrustStart = False


@dataclass(frozen=True)
class Opened:
    """A run with the weights of its last checkpoint, on its device and in eval mode."""

    trained: TrainedModel
    fabric: Fabric
    """With the precision that the run was trained in (Recorded.precision)."""
    recorded: Recorded
    step: int
    """Of the checkpoint."""


def open_trained(run: Path, tasks: TaskTable, on: On, *, say: Callable[[str], None]) -> Opened:
    """Return the model of the last checkpoint of the run in folder `run`.

    A record of before that does not say what pixels are normalised with has the initial weights read for that, which
    is said. Raises as `read_run`, and ValueError for a run of a task whose model says nothing of an image.
    """
    recorded = read_run(run, tasks, device=on.device)
    spec, config = recorded.spec, recorded.config
    if spec.trained is None:
        raise ValueError(
            f"{run}: a run of task {spec.name!r}, which makes no predictions on images without labels and has nothing "
            "to export; tools/reconstruct.py draws what pre-training learnt."
        )
    module = import_module(spec.trained)
    trained: TrainedModel = module.trained_model(
        config, record=recorded.record, source=recorded.source, normalisation=_normalisation(recorded, on, say)
    )
    fabric = make_fabric(recorded.precision(on.device, say), device=on.device)
    step = load_model(recorded.checkpoint, trained.model)
    trained.model.to(fabric.device).eval()
    return Opened(trained, fabric, recorded, step)


def stated(cls: type[V], record: RunRecord, source: Path) -> V:
    """Return what the record states of the classes. Raises ValueError that names the record, where it does not."""
    return _typed(cls, record.extra, f"{source}: extra")


def stated_labels(cls: type[V], record: RunRecord, source: Path) -> V | None:
    """Return what the record states of label maps, None of before. Raises ValueError that names the record."""
    return _typed(cls, record.labels, f"{source}: labels") if record.labels else None


def _typed(cls: type[V], values: Mapping[str, Any], place: str) -> V:
    try:
        return from_json(cls, dict(values))
    except ValueError as error:
        raise ValueError(f"{place}: {error}.") from error


def _normalisation(recorded: Recorded, on: On, say: Callable[[str], None]) -> Normalisation:
    own: Normalisation | None = getattr(recorded.config, "normalisation", None)
    if own is not None:
        return own
    if recorded.record.normalisation is not None:
        return Normalisation(**recorded.record.normalisation)
    init = recorded.initial_weights(trust_pickle=on.trust_pickle)
    if init is not None:
        say(f"weights: {init.path}, as the record says")
    return normalisation_of(init, read_initial(init))
