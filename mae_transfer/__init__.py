"""The Python face: a backbone from a file of weights, a trained run that predicts, records as a data frame.

    from mae_transfer import load_backbone, load_run, read_records

    backbone = load_backbone("mae_pretrain_vit_base.pth", source="mae")
    tokens = backbone.features(["a.jpg", "b.jpg"])  # (2, 1 + 196, 768)

torch is imported by the first call, not by this module.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from mae_transfer.models import Backbone, Run

__all__ = ["load_backbone", "load_run", "read_records"]


def load_backbone(path: str | Path, *, source: str = "own", device: str = "cpu", **declared: Any) -> "Backbone":
    """Return the ViT in a file of weights, in eval mode, with the normalisation that the weights were trained with.

    `path` may be a name too: `hf:OWNER/MODEL[@REVISION]`, `timm:NAME.TAG`, an https address (backbones.weights.hub).

    `source` is the family of the file, as `--init-source` of the tools; `declared` are the other fields of
    `backbones.weights.declaration.InitialWeights` (num_heads, image_size, trust_pickle). Nothing is guessed.

    Raises FileNotFoundError, or ValueError that names the file and what it lacks.
    """
    from mae_transfer.models import Backbone

    return Backbone.load(Path(path), source=source, device=device, **declared)


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
