"""What a run is in a table: the arm that it belongs to, and the line of results."""

from dataclasses import dataclass

from backbones.weights.declaration import BACKBONE_NAME
from engine.records.record import RunRecord
from engine.spec import Scores, TaskTable

TOKENIZER_NAME = "tokenizer.safetensors"


@dataclass(frozen=True)
class Line:
    """A task of the comparison: its runs are compared with each other and with no others."""

    label: str
    scores: Scores
    """What its runs are compared by."""
    task: str = ""
    """What a study calls its task; empty outside of a study."""
    label_fraction: float = 1.0
    """Of the labels."""

    @property
    def kind(self) -> str:
        """What it measures."""
        return self.scores.kind


def usual_lines(tasks: TaskTable) -> tuple[Line, ...]:
    """Return the lines that a table has where nothing of them was run: of every task that is trained and compared."""
    specs = [spec for spec in tasks.values() if spec.transfers and spec.module is not None]
    return tuple(Line(spec.scores[0].label, spec.scores[0]) for spec in specs)


def made_weights(record: RunRecord, tasks: TaskTable) -> bool:
    """Return whether a run is a pre-training that has left its weights; a transfer leaves its own, which are no arm."""
    spec = tasks.get(record.task)
    return BACKBONE_NAME in record.outputs and (spec is None or not spec.transfers)


def arm_of(record: RunRecord, *, pretrained: bool) -> str:
    """Return what the weights of a run are called: its own label, else what made them.

    A pre-training (`pretrained`, as `made_weights` says) is of the arm that its weights will be of.
    """
    if record.arm is not None:
        return record.arm
    return record.task if pretrained else record.weights_source


def line_of(record: RunRecord, tasks: TaskTable, name: str | None = None) -> Line | None:
    """Return the line of a transfer run, None for any other run.

    Fractions of the labels, protocols of classification and LVIS have lines of their own. `name` is what a study calls
    the task; the study itself keeps its protocols apart.
    """
    spec = tasks.get(record.task)
    if spec is None or not spec.transfers:
        return None
    scores, protocol = spec.scored(record.config, tuple(record.metrics))
    parts = [scores.label, protocol] if name is None else [name]
    fraction = record.config.get("label_fraction") or 1.0
    parts += [scores.apart, fraction_text(fraction) if fraction < 1 else ""]
    return Line(", ".join(filter(None, parts)), scores, name or "", fraction)


def fraction_text(fraction: float) -> str:
    """Return a fraction of the labels as a table says it."""
    return f"{100 * fraction:g} % of labels"
