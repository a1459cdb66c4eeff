"""Sections of a study file that call no tool."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from benchmark.study.full_scale import FullScale, FullScaleRow
from benchmark.study.options import wrong
from benchmark.study.plan import Match
from benchmark.study.values import Hours, Pattern, Positive, Recipe, Text, Whole, listed


class Part(BaseModel):
    """A section of the file; a field that is excluded is no key of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    @classmethod
    def keys(cls) -> set[str]:
        """Return the keys that it may have, flags apart."""
        return {name for name, field in cls.model_fields.items() if not field.exclude}


class Grouping(Part):
    """Groups of test images, as the frames of a video."""

    pattern: Pattern | None = None
    """Regular expression; its one group is what images that belong together have in their names alike."""
    file: Text | None = None
    """A line `name,group` for every image."""

    @model_validator(mode="after")
    def _one(self) -> "Grouping":
        if (self.pattern is None) == (self.file is None):
            raise wrong("give a pattern or a file, one of them")
        return self


class Cluster(Part):
    """What a job of a run asks SLURM for."""

    partition: Recipe | None = None
    account: Recipe | None = None
    nodes: Annotated[int, Field(ge=1)] = 1
    """Nodes of a training run, each with as many GPUs, cores and as much memory as follows."""
    gpus: Whole = 0
    cpus: Whole = 4
    memory_gb: Whole = 16
    hours: Hours = 24.0
    """Limit of a job, which is queued again and resumed when it is reached."""
    at_once: Whole = 16
    """Jobs of an array that run at the same time."""


class Compare(Part):
    """What the verdicts are about."""

    claim: str = "mae"
    """Label of the arm whose advantage they are about."""
    against: str = "supervised"
    """Label of the other arm of the headline."""
    pass_mark: Positive | None = None
    """Percent top1 that a supervised pre-training must reach on its own held-out images to be no straw man."""


class Budget(Part):
    """What the pre-trainings share."""

    match: Match = "samples"
    """Samples seen, FLOPs, or nothing."""
    arms: dict[Text, Match] = Field(default_factory=dict)
    """What an arm shares with the claim's in place of that: a study may hold labels at equal samples and at equal
    FLOPs."""


class Row(Part):
    """A row of a paper's table."""

    variant: Text
    arm: str | None = None
    values: Annotated[dict[Text, Positive], Field(min_length=1)]


class Published(Part):
    """What a paper reports of the same question at full scale."""

    source: Text
    setting: Text
    rows: Annotated[tuple[Row, ...], listed("[{arm: grid, variant: grid 75 %, values: {linear: 66.0}}]")]

    def table(self) -> FullScale:
        """Return it as the report takes it."""
        rows = (FullScaleRow(variant=row.variant, arm=row.arm, values=dict(row.values)) for row in self.rows)
        return FullScale(source=self.source, setting=self.setting, rows=tuple(rows))
