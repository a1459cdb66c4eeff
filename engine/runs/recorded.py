"""What the folder of a run says of it: its record, its configuration, its last checkpoint. Nothing else is opened."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backbones.weights.declaration import InitialWeights
from engine.config import Precision, check_device
from engine.device import auto_precision, device_named
from engine.images.file import allow_megapixels
from engine.records.record import RECORD_NAME, RunRecord, read_record, standing
from engine.records.recording import last_precision
from engine.runs.bounds import refuse_beyond
from engine.spec import TaskSpec, TaskTable
from engine.training.processes import processes
from engine.training.resume import checkpoints
from files.digest import file_sha256
from files.typed import from_json


@dataclass(frozen=True)
class Recorded:
    """A run as its folder tells it."""

    folder: Path
    record: RunRecord
    spec: TaskSpec
    config: Any
    """Of the task."""
    checkpoint: Path
    """The last one."""

    @property
    def source(self) -> Path:
        """The record, for messages."""
        return self.folder / RECORD_NAME

    def initial_weights(self, *, trust_pickle: bool) -> InitialWeights | None:
        """Return the declaration of what the run started from, None for random weights.

        Where the record or the configuration states what pixels are normalised with, so does the declaration, and the
        file is not to be read. What the record says of trust is not asked: whoever made the folder wrote it.

        Raises FileNotFoundError or ValueError where the file has to be read and is gone or is another now.
        """
        record, config, source = self.record, self.config, self.source
        if record.weights_path is None or getattr(config, "resume_from", None) is not None:
            return None
        options = {
            name: value for name, value in record.weights_options.items() if name not in ("trust_pickle", "path")
        }
        try:
            declared = from_json(InitialWeights, {**options, "path": record.weights_path}, place="weights_options")
        except ValueError as error:
            raise ValueError(f"{source}: {error}.") from error
        own = getattr(config, "normalisation", None)
        known = record.normalisation or (None if own is None else {"mean": own.mean, "std": own.std})
        if known is not None:
            return replace(declared, normalisation=known)
        path = declared.path
        if not path.exists():
            raise FileNotFoundError(
                f"{path}: the weights that the run started from are gone; their header states the normalisation of the "
                f"pixels, which {source}, a record of before, does not. Put back the file of sha256 "
                f"{record.weights_sha256}."
            )
        if (
            path.is_file()
            and record.weights_sha256 is not None
            and (found := file_sha256(path)) != record.weights_sha256
        ):
            raise ValueError(
                f"{path}: is another file now (sha256 {found}) than the weights that the run started from "
                f"({record.weights_sha256}); they state the normalisation of the pixels, which {source}, a record of "
                "before, does not. Put the file back."
            )
        return replace(declared, trust_pickle=trust_pickle)

    def precision(self, device: str, say: Callable[[str], None]) -> Precision:
        """Return the precision that the run was trained in, where `device` computes it, else float32, which is said.

        bfloat16 that the configuration asks for is computed on any device, that of `auto` where it is native.

        Raises ValueError as `device_named`.
        """
        asked, trained = self.config.run.precision, last_precision(self.record.precision)
        on_gpu = device_named(device, processes=processes()).type == "cuda"
        if trained == "16-mixed" and on_gpu:
            return "16-mixed"
        if trained == "bf16-mixed" and (asked == trained or auto_precision(on_gpu=on_gpu) == trained):
            return "bf16-mixed"
        if trained != "32-true":
            say(f"precision: 32-true; the run was trained in {trained}, which this device does not compute natively")
        return "32-true"


def read_run(run: Path, tasks: TaskTable, *, device: str) -> Recorded:
    """Return what the folder `run` says of a run of one of `tasks`; its limit of megapixels is taken.

    Raises ValueError or FileNotFoundError where the folder holds no record or no checkpoint, for a device that is none,
    and for a model that the checkpoint cannot hold.
    """
    check_device(device)
    record = read_record(run)
    source = run / RECORD_NAME
    spec = tasks.get(record.task)
    if spec is None or spec.module is None:
        known = ", ".join(sorted(name for name, each in tasks.items() if each.module is not None))
        raise ValueError(f"{source}: a run of task {record.task!r}; known are {known}.")
    saved = checkpoints(run)
    if not saved:
        raise FileNotFoundError(
            f"{run}: holds no checkpoint to evaluate (status {standing(run, record)}, step {record.steps})."
        )
    try:
        config = from_json(spec.config, record.config, place="config")
    except ValueError as error:
        raise ValueError(f"{source}: {error}.") from error
    refuse_beyond(config, saved[-1], source)
    allow_megapixels(config.run.max_megapixels, at_least=True)
    return Recorded(run, record, spec, config, saved[-1])
