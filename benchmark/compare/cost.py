"""What each arm of a comparison took: its pre-training, and the training of each task from it."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.compare.lines import Line
from benchmark.compare.origins import pretrained_on
from benchmark.compare.records import Stored
from benchmark.compare.seeds import Summary, summarise


@dataclass(frozen=True, kw_only=True)
class ArmCost:
    """What an arm took; means where it was run several times, None where nothing is recorded."""

    arm: str
    pretrained_on: str | None
    """Data of its pre-training, as far as it is known."""
    pretrained_images: str | None
    """The same without a word on labels: what arms must share to be of the same data."""
    pretrainings: int
    """Records of its pre-training."""
    parameters: float | None
    """Of the model that was pre-trained, decoder or head included."""
    samples_seen: float | None
    """Images seen in pre-training, repetitions and the crops of one image counted."""
    training_flops: float | None
    """MACs of pre-training on one sample, an estimate: three times the recorded forward pass of what is
    trained, and the forward pass of what is frozen."""
    seconds: float | None
    """Wall clock of the pre-training steps."""
    images_per_second: float | None
    peak_memory_bytes: float | None
    transfer_seconds: dict[str, Summary | None]
    """line -> wall clock of its training steps; None where nothing is trained (a probe of frozen features)."""


def arm_cost(arm: str, lines: Sequence[Line], pretrainings: Sequence[Stored], transfers: Sequence[Stored]) -> ArmCost:
    """Return what an arm took, from its pre-trainings and its transfer runs among these."""
    records = [item.record for item in pretrainings if item.arm == arm]
    mine = [item for item in transfers if item.arm == arm]
    return ArmCost(
        arm=arm,
        pretrained_on=pretrained_on(arm, pretrainings, mine),
        pretrained_images=pretrained_on(arm, pretrainings, mine, labels=False),
        pretrainings=len(records),
        parameters=_mean([r.cost.parameters for r in records]),
        samples_seen=_mean([r.samples_seen for r in records]),
        training_flops=_mean([r.cost.training_flops for r in records]),
        seconds=_mean([r.cost.train_seconds for r in records]),
        images_per_second=_mean([r.cost.images_per_second for r in records]),
        peak_memory_bytes=_mean([r.cost.peak_memory_bytes for r in records]),
        transfer_seconds={
            line.label: summarise(
                [i.record.cost.train_seconds for i in mine if i.line == line and i.record.total_steps > 0]
            )
            for line in lines
        },
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean, or None where any value is missing or there is none."""
    known = [value for value in values if value is not None]
    summary = summarise(known) if len(known) == len(values) else None
    return None if summary is None else summary.mean
