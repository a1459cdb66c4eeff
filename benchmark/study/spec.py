"""What a study asks: arms, tasks, seeds, learning rates and budgets. docs/studies.md shows the file.

The classes are the file: a key is a field. What else stands in a section are flags of the tool that it calls, by the
names of --help with underscores; they are read as the tool's own types (`benchmark.study.options`).
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
    model_validator,
)

from benchmark.study.arms import Arm, Pretraining, PretrainSearch
from benchmark.study.calling import Calling, Tools, named
from benchmark.study.options import Errors, Types, one_of
from benchmark.study.plan import PretrainSeeds
from benchmark.study.sections import Budget, Cluster, Compare, Part, Published
from benchmark.study.transfer import TransferTask
from benchmark.study.values import (
    DIFFER,
    Differing,
    Name,
    Positive,
    Seeds,
    Text,
    Whole,
    listed,
    rising,
)

# of a study's folder: what is made by `scenes` and `tokenizers` lies beside it
OWN_NAMES = {"groups", "held-out", "logs", "search", "slurm", "study.json", "study.yaml"}


class Scenes(Calling):
    """Procedural images that are made first; `data` names them by `NAME/imagenet`, `NAME/coco`, `NAME/ade20k`."""

    name: str = Field(default="", exclude=True)

    @classmethod
    def _types(cls, values: Mapping[str, Any], tools: Tools) -> tuple[Types | None, str]:
        types = tools["make_scenes"].types(None)
        return {name: hint for name, hint in types.items() if name != "out"}, "make_scenes"


class Study(Part):
    """The whole of a study file."""

    name: Name
    data: Text = "."
    """Folder that the file's paths start from."""
    compare: Compare = Compare()
    seeds: Seeds
    """Of the transfers."""
    pretrain_seeds: PretrainSeeds = "one"
    """one: each arm is pre-trained once; tied: transfer seed s starts from pre-training s; crossed: every transfer seed
    starts from each pre-training of `pretraining_seeds`."""
    pretraining_seeds: Seeds | None = None
    looks: Annotated[tuple[Whole, ...], AfterValidator(rising), listed("[3, 5, 8]")] = ()
    """Numbers of seeds (of pre-trainings, where crossed) at which verdicts are read; alpha is spent over them."""
    margins: dict[Text, Positive] = Field(default_factory=dict)
    """Task or metric -> difference below which two arms are called equivalent, in units of the metric."""
    budget: Budget = Budget()
    pretrain_search: PretrainSearch | None = None
    differ: Annotated[tuple[Differing, ...], listed(f"[{DIFFER[1]}]")] = ()
    """Parts of the architecture in which the arms differ by intention: `architecture`, or `architecture.FIELD`."""
    published: Published | None = None
    scenes: Annotated[tuple[Scenes, ...], named(Scenes)] = ()
    tokenizers: Annotated[tuple[Pretraining, ...], named(Pretraining)] = ()
    """What arms predict the tokens of."""
    arms: Annotated[tuple[Arm, ...], named(Arm, "label", least=1)]
    tasks: Annotated[tuple[TransferTask, ...], named(TransferTask, least=1)]
    cluster: Cluster = Cluster()

    @model_validator(mode="after")
    def _together(self) -> "Study":
        labels = [arm.label for arm in self.arms]
        errors = Errors()
        if len(labels) == 1:
            errors.say("1 arm; a comparison needs two or more", "arms")
        for name, others in (
            ("claim", labels),
            ("against", [label for label in labels if label != self.compare.claim]),
        ):
            value = getattr(self.compare, name)
            if name not in self.compare.model_fields_set and value not in others:
                said = f"missing; it is one of {', '.join(others)} (`compare: {{claim: ARM, against: ARM}}`)"
                errors.say(said, "compare", name)
            else:
                errors.kept(one_of, value, others, at=("compare", name))
        pretrained = [arm.label for arm in self.arms if arm.pretrain is not None]
        for label in self.budget.arms:
            errors.kept(one_of, label, pretrained, at=("budget", "arms"))
        for number, row in enumerate(self.published.rows if self.published is not None else ()):
            if row.arm is not None:
                errors.kept(one_of, row.arm, labels, at=("published", "rows", number, "arm"))
        for name in (*(item.name for item in self.scenes), *(item.name for item in self.tokenizers)):
            if name in OWN_NAMES:
                errors.say("the study's folder has something of this name itself; give another", name)
        if (self.pretraining_seeds is not None) != (self.pretrain_seeds == "crossed"):
            errors.say("goes with `pretrain_seeds: crossed`, which needs it; tied takes `seeds`", "pretraining_seeds")
        if (lack := too_few(self, self.seeds)) is not None:
            errors.say(lack, "pretraining_seeds")
        self._together_in_search(errors)
        for task in self.transfers:
            if task.search is not None and task.search.seed in self.seeds:
                said = f"{task.search.seed} is a seed of the study; the search takes another"
                errors.say(said, "tasks", task.name, "search", "seed")
        errors.refuse()
        return self

    @property
    def transfers(self) -> tuple[TransferTask, ...]:
        """The tasks, one for each of their protocols."""
        return tuple(made for task in self.tasks for made in task.tasks())

    def _together_in_search(self, errors: Errors) -> None:
        """Keep what makes the search of pre-trainings none that is alike for every arm."""
        search, key = self.pretrain_search, "base_lrs"
        for item in self.tokenizers:
            if item.base_lrs:
                errors.say("only the pre-training of an arm is searched; give base_lr", "tokenizers", item.name, key)
        arms = [(arm.label, arm.pretrain) for arm in self.arms if arm.pretrain is not None]
        for label, pretrain in arms:
            place = ("arms", label, "pretrain", key)
            if search is None and pretrain.base_lrs:
                errors.say("goes with `pretrain_search: {hold_out: ..., steps: ..., probe: ...}` of the study", *place)
            elif search is not None and len(pretrain.base_lrs) != len(arms[0][1].base_lrs or (0,)):
                said = f"{len(pretrain.base_lrs)} learning rates, {len(arms[0][1].base_lrs)} in {arms[0][0]}"
                errors.say(f"{said}; give every arm as many, so that none is tuned more", *place)
        if search is not None and search.seed in pretraining_seeds(self):
            said = f"{search.seed} is a seed of the pre-trainings; the search takes another"
            errors.say(said, "pretrain_search", "seed")


def too_few(study: Study, seeds: Sequence[int]) -> str | None:
    """Return why a study that crosses its pre-trainings with these transfer seeds could have no verdict."""
    given = study.pretraining_seeds
    if given is None or 1 < len(given) <= len(seeds):
        return None
    if len(given) == 1:
        return "1 pre-training; give two or more, or take `pretrain_seeds: one`"
    counts = f"{len(given)} pre-trainings and {len(seeds)} transfer seeds"
    return f"{counts}; give as many `seeds` or more, else the intervals hold less than they say"


def pretraining_seeds(study: Study) -> tuple[int | None, ...]:
    """Return the seeds of each arm's pre-trainings; of a single one None, which is the recipe's."""
    if study.pretrain_seeds == "one":
        return (None,)
    return study.seeds if study.pretraining_seeds is None else study.pretraining_seeds
