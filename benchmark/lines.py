"""What a run is in a table: the arm that it belongs to, and the line of results."""

from dataclasses import dataclass
from typing import Literal

from engine.record import RunRecord

CHECKPOINT_NAME = "backbone.safetensors"
TOKENIZER_NAME = "tokenizer.safetensors"
Kind = Literal["classification", "detection", "segmentation", "lvis", "knn", "linear_features"]
METRICS: dict[str, tuple[str, ...]] = {  # the first of each kind is the one that its verdict is about
    "classification": ("top1",),
    "detection": ("box_ap", "box_ap50", "mask_ap", "mask_ap50"),
    "segmentation": ("miou", "macc", "aacc"),
    "lvis": ("box_ap", "mask_ap", "mask_ap_rare", "mask_ap_common", "mask_ap_frequent"),
    "knn": ("top1",),
    "linear_features": ("top1",),
}
LVIS_ALONE = "box_ar300"  # LVIS looks at 300 detections of an image, COCO at 100


@dataclass(frozen=True)
class Line:
    """A task of the comparison: its runs are compared with each other and with no others."""

    label: str
    kind: Kind
    """What it measures, a key of METRICS."""
    task: str = ""
    """What a study calls its task; empty outside of a study."""
    share: float = 1.0
    """Of the labels."""


LINES = (
    Line("classification", "classification"),
    Line("detection", "detection"),
    Line("segmentation", "segmentation"),
)


def arm_of(record: RunRecord) -> str:
    """Return what the weights of a run are called: its own label, else what made them.

    A pre-training is of the arm that its weights will be of.
    """
    if record.arm is not None:
        return record.arm
    return record.task if CHECKPOINT_NAME in record.outputs else record.weights_source


def kind_of(record: RunRecord) -> Kind | None:
    """Return what a run measures; None for one that is no transfer."""
    if record.task == "detection" and LVIS_ALONE in record.metrics:
        return "lvis"
    return record.task if record.task in METRICS else None  # type: ignore[return-value]


def line_of(record: RunRecord, name: str | None = None) -> Line | None:
    """Return the line of a transfer run, None for any other run.

    Shares of the labels, protocols of classification and LVIS have lines of their own. `name` is what a study calls the
    task; the study itself keeps its protocols apart.
    """
    kind = kind_of(record)
    if kind is None:
        return None
    parts = [name] if name is not None else _unnamed(record, kind)
    if name is not None and kind in ("knn", "linear_features"):
        parts.append(_PROBES[kind])
    share = record.config.get("label_share") or 1.0
    if share < 1:
        parts.append(share_text(share))
    return Line(", ".join(parts), kind, name or "", share)


def share_text(share: float) -> str:
    """Return a share of the labels as a table says it."""
    return f"{100 * share:g} % of labels"


_PROBES = {"knn": "k-NN", "linear_features": "linear on features"}


def _unnamed(record: RunRecord, kind: Kind) -> list[str]:
    if kind in _PROBES:
        return ["classification", _PROBES[kind]]
    if kind == "lvis":
        return ["detection", "LVIS"]
    parts: list[str] = [kind]
    config = record.config
    if kind == "classification" and config.get("protocol", "finetune") != "finetune":
        blocks = f" {config.get('tuned_blocks', 1):g}" if config["protocol"] == "partial" else ""
        parts.append(f"{config['protocol']}{blocks}")
    return parts
