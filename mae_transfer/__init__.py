"""The Python face: a backbone or a whole MAE from weights, training, a run that predicts, records as data frames.

    from mae_transfer import load_backbone, load_mae, load_run, read_differences, read_records, train

    backbone = load_backbone("mae_pretrain_vit_base.pth", source="mae")
    tokens = backbone.features(["a.jpg", "b.jpg"])  # (2, 1 + 196, 768)

torch is imported by the first call, not by this module.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from mae_transfer.mae import MAE
    from mae_transfer.models import Backbone, Run

__all__ = ["load_backbone", "load_mae", "load_run", "read_differences", "read_records", "train"]


def load_backbone(path: str | Path, *, source: str = "own", device: str = "cpu", **declared: Any) -> "Backbone":
    """Return the ViT in a file of weights, in eval mode, with the normalisation that the weights were trained with.

    `path` may be a name too: `hf:OWNER/MODEL[@REVISION]`, `timm:NAME.TAG`, an https address (backbones.weights.hub).

    `source` is the family of the file, as `--init-source` of the tools; `declared` are the other fields of
    `backbones.weights.declaration.InitialWeights` (num_heads, image_size, trust_pickle). Nothing is guessed.

    Raises FileNotFoundError, or ValueError that names the file and what it lacks.
    """
    from mae_transfer.models import Backbone

    return Backbone.load(Path(path), source=source, device=device, **declared)


def load_mae(
    path: str | Path,
    *,
    source: str = "own",
    target: str | None = None,
    decoder_heads: int = 16,
    device: str = "cpu",
    **declared: Any,
) -> "MAE":
    """Return an MAE with its decoder: of a run of `tools/pretrain.py`, or of a file of weights that has one.

    A run's folder is enough. Of a file `source` and `declared` are as in `load_backbone`; `target` says what its
    decoder predicts, "pixels" or "normalised", and `decoder_heads` its attention heads.

    Raises FileNotFoundError, or ValueError that names the file and what it lacks.
    """
    from mae_transfer.mae import MAE

    return MAE.load(Path(path), source=source, target=target, decoder_heads=decoder_heads, device=device, **declared)


def train(tool: str, recipe: str, *, data: str | Path, out: str | Path, **flags: Any) -> Path:
    """Train as `tools/TOOL.py RECIPE --data DATA --out OUT` does, in this process, and return `out`.

    `tool` is `pretrain`, `train_cls`, `train_det` or `train_seg`, `flags` are the tool's with underscores for hyphens:
    `train("train_cls", "tiny", data=..., out=..., init=..., steps=100, base_lr=3e-3)`.

    Raises ValueError for what is no tool, recipe or flag, and what the tool prints as an error: FileNotFoundError,
    ValueError, NonFiniteError. An interrupted run is saved, and KeyboardInterrupt raised; `resume=True` continues it.
    """
    from mae_transfer.training import train_run

    return train_run(tool, recipe, {"data": Path(data), "out": Path(out), **flags})


def load_run(folder: str | Path, *, device: str = "auto") -> "Run":
    """Return the model of the last checkpoint of a run of classification, detection or segmentation, ready to predict.

    The folder is enough, wherever it lies: the data and the weights that the run started from are not opened. `device`
    is as `--device` of the tools: auto, cpu, cuda, cuda:N.

    Raises FileNotFoundError or ValueError that names the file.
    """
    from mae_transfer.models import Run

    return Run.load(Path(folder), device=device)


def read_records(folder: str | Path) -> "pd.DataFrame":
    """Return the records below a folder, a row per run and metric.

    Columns: folder, status, task, recipe, weights (the arm), seed, metric, value. Raises FileNotFoundError where there
    is no record; a record that cannot be read is warned of and left out.
    """
    import warnings

    from benchmark.compare.records import frame, open_store
    from mae_transfer.tasks import TASKS

    store = open_store(Path(folder), TASKS)
    for text in store.unreadable:
        warnings.warn(text, stacklevel=2)
    return frame(store.stored)


def read_differences(folder: str | Path) -> "pd.DataFrame":
    """Return the differences between the arms of the runs below a folder, as the report of a study judges them.

    A row per task, metric and other arm. Columns: task, metric, unit and higher_is_better (of the metric), arm,
    reference, by_seed (arm minus reference, a tuple), difference (their mean), low and high (95 % interval, missing for
    one seed), images (resampled for it; missing where the interval speaks of the seeds alone), p, adjusted_p (Holm,
    over tasks) and verdict, the latter two of the leading metric of each task. The statistics are those of
    docs/statistics.md.

    Raises FileNotFoundError where there is no record, ValueError where nothing can be compared. What is left out is
    warned of.
    """
    from mae_transfer.differences import differences

    return differences(Path(folder))
