"""The command line's part of statistics of one's own images."""

from dataclasses import dataclass
from typing import Annotated

from tyro.constructors import PrimitiveConstructorSpec

from engine.launch import TrainArgs

# a bare flag that is None where it is not given, so that it is refused by recipes that have no use for it
Given = Annotated[
    bool | None,
    PrimitiveConstructorSpec(
        nargs=0,
        metavar="",
        instance_from_str=lambda _: True,
        is_instance=lambda value: value is None or isinstance(value, bool),
        str_from_instance=lambda _: [],
    ),
]


@dataclass(frozen=True, kw_only=True)
class StatisticsFlags(TrainArgs):
    """Flag of pre-training a ViT; it carries the name of a field of the configurations."""

    statistics: Given = None
    """All but the tokenizer: normalise pixels with the mean and standard deviation of the training images, computed
    before the first step from up to 10,000 of them, instead of ImageNet's. They go into the record and
    backbone.safetensors, where every tool that loads it finds them; with --resume they are those of the run."""
