"""What the weights of each arm were pre-trained on: by its pre-training here, or by the catalogue of public weights."""

from collections.abc import Sequence
from pathlib import Path

from backbones.weights.hub import catalogued
from benchmark.compare.records import Stored
from engine.records.record import RunRecord

NOT_KNOWN = "not known"
NOTHING = "nothing"
RANDOM = "random"
_LABELS = {
    "none": "no labels",
    "classes": "labels",
    "texts": "texts",
    "texts and classes": "texts and labels",
    "boxes": "boxes",
}


def pretrained_on(
    arm: str, pretrainings: Sequence[Stored], transfers: Sequence[Stored], *, labels: bool = True
) -> str | None:
    """Return the data of an arm's pre-training and what people gave with them, all of it where its weights differ.

    Without `labels` the images alone, those of teachers and tokenizers included: arms are of the same data where these
    are. None where nothing of the arm is recorded.
    """
    if arm == RANDOM:
        return NOTHING
    here = [Path(item.record.data).name + " (here)" for item in pretrainings if item.arm == arm]
    found = here or [_of_weights(item.record, labels=labels) for item in transfers if item.arm == arm]
    return "; ".join(dict.fromkeys(found)) or None


def _of_weights(record: RunRecord, *, labels: bool) -> str:
    """Return what the catalogue says of the weights that a run started from."""
    named = record.weights_name or record.weights_path
    try:
        entry = None if named is None else catalogued(named)
    except ValueError:  # no name of ours in a record of others
        entry = None
    if entry is None:
        return NOT_KNOWN
    return f"{entry.images} ({_LABELS[entry.labels]})" if labels else entry.images
