"""What a study asks: arms, tasks, seeds, learning rates and budgets. docs/studies.md shows the file.

The classes are the file: a key is a field. What else stands in a section are flags of the tool that it calls, by the
names of --help with underscores; they are read as the tool's own types (`benchmark.study.options`).
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)

from benchmark.study.options import Errors, Types, known_recipe, one_of, read_options, wrong
from benchmark.study.plan import PretrainSeeds
from benchmark.study.search import LR_FLAG
from benchmark.study.sections import Budget, Cluster, Compare, Grouping, Part, Published
from benchmark.study.tool import Tool
from benchmark.study.values import (
    DIFFER,
    Between,
    Differing,
    Fraction,
    Hours,
    Name,
    Positive,
    Recipe,
    Seeds,
    Text,
    Whole,
    distinct,
    listed,
    rising,
)
from engine.init_flags import InitFlags

FRACTION_FLAG = "label_fraction"
SHORT = ("steps", "epochs", "warmup")  # flags of a short pre-training
SEARCH_SEED = 100
PROBE = "probe"  # the tool that judges the learning rates of pre-trainings
PRETRAIN = "pretrain"  # the tool that makes weights; the others that take some transfer them
# what a study sets itself
SET = {"recipe", "backbone", "data", "out", "resume", "seed", "arm", LR_FLAG, FRACTION_FLAG, "cache"}
SET |= {f.name for f in fields(InitFlags)}
# of a study's folder: what is made by `scenes` and `tokenizers` lies beside it
OWN_NAMES = {"groups", "held-out", "logs", "search", "slurm", "study.json", "study.yaml"}
Tools = Mapping[str, Tool]


def _named(cls: type["Part"], name: str = "name", *, least: int = 0) -> BeforeValidator:
    """Read sections under their names; a word, `random`, stands for `{random: true}`."""

    def read(values: Any, info: ValidationInfo) -> Any:
        if not isinstance(values, dict):
            raise ValueError("must be a mapping, `key: value` by line")
        if len(values) < least:
            raise wrong("is empty; name one or more")
        values = {key: {value: True} if value == "random" else value for key, value in values.items()}
        found: dict[str, Part] = TypeAdapter(dict[Name, cls]).validate_python(  # type: ignore[valid-type]
            values, context=info.context
        )
        return tuple(part.model_copy(update={name: key}) for key, part in found.items())

    return BeforeValidator(read)


class _Calling(Part):
    """A section whose other keys are flags of a tool; `_types` says which."""

    options: dict[str, Any] = Field(default_factory=dict, exclude=True)
    """Flags by name, as the tool's own types."""

    @classmethod
    def _types(cls, values: Mapping[str, Any], tools: Tools) -> tuple[Types | None, str]:
        """Return the types of the flags that may stand here, and what has them; None where that cannot be said."""
        raise NotImplementedError

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, values: Any, handler: Callable[[Any], Any], info: ValidationInfo) -> Any:
        if not isinstance(values, dict):
            return handler(values)
        plain, given = _split(values, cls)
        inner: dict[str, Any] = {}
        if isinstance(plain.get("search"), dict):  # its flags are those of the task's tool
            plain["search"], inner = _split(plain["search"], Grid)
        errors = Errors()
        made = errors.kept(handler, plain)
        types, whose = cls._types(values, _tools(info))
        options = errors.kept(read_options, given, types, whose, cls.keys())
        searched = errors.kept(read_options, inner, types, whose, Grid.keys(), at=("search",))
        errors.refuse()
        update: dict[str, Any] = {"options": options}
        if inner:
            update["search"] = made.search.model_copy(update={"options": searched})
        return made.model_copy(update=update)


class Pretraining(_Calling):
    """A pre-training that is run first."""

    name: str = Field(default="", exclude=True)
    """Of a tokenizer, which arms name as `NAME/tokenizer.safetensors`."""
    recipe: Recipe
    data: Text
    hours: Hours | None = None
    """About how long it takes; what is recorded goes before it."""
    flops_per_image: Positive | None = None
    """MACs of one forward pass, as a record has them; goes before what is recorded."""
    base_lrs: Annotated[tuple[Positive, ...], AfterValidator(distinct), listed("[7.5e-4, 1.5e-3, 3e-3]")] = ()
    """Learning rates of which the study's `pretrain_search` chooses one."""

    @classmethod
    def _types(cls, values: Mapping[str, Any], tools: Tools) -> tuple[Types | None, str]:
        # a learning rate that is searched is set by the study
        own = set() if "base_lrs" in values else {LR_FLAG}
        return _flags_of(tools[PRETRAIN], values.get("recipe"), own), PRETRAIN

    @field_validator("recipe")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        return known_recipe(value, _tools(info)[PRETRAIN].recipes)


class Arm(_Calling):
    """Weights to compare: random ones, a file, or what a pre-training leaves; `options` declare the file."""

    label: str = Field(default="", exclude=True)
    random: Literal[True] | None = None
    init: Text | None = None
    pretrain: Pretraining | None = None

    @classmethod
    def _types(cls, values: Mapping[str, Any], tools: Tools) -> tuple[Types | None, str]:
        if "init" not in values:
            return {}, "an arm without `init`"
        # the study's `differ` decides on the architecture
        left_out = ("init", "init_architecture")
        own = tools[PRETRAIN].own()
        return {f.name: own[f.name] for f in fields(InitFlags) if f.name not in left_out}, "an arm with `init`"

    @model_validator(mode="before")
    @classmethod
    def _one_way(cls, values: Any) -> Any:
        if isinstance(values, dict):
            ways = [way for way in ("random", "init", "pretrain") if way in values]
            if len(ways) != 1:
                raise wrong(
                    "an arm is one of: `random: true`, `init: FILE`, `pretrain: {recipe: ..., data: ...}`",
                    " or ".join(ways or ("random", "init", "pretrain")),
                )
        return values


class Grid(Part):
    """The search of the learning rate of a task, the same for every arm."""

    base_lrs: Annotated[tuple[Positive, ...], AfterValidator(distinct), listed("[2.5e-4, 5e-4, 1e-3]")]
    seed: Whole = SEARCH_SEED
    hold_out: Between | None = None
    """Fraction of the training images that is held out for it; None where `options` name other images."""
    data: Text | None = None
    """In place of the task's."""
    options: dict[str, Any] = Field(default_factory=dict, exclude=True)
    """Flags in place of the task's or beside them."""


class Judge(_Calling):
    """The probe that judges short pre-trainings; its flags."""

    recipe: Recipe
    """Name of a ViT, whose image_size is that of the features."""

    @classmethod
    def _types(cls, values: Mapping[str, Any], tools: Tools) -> tuple[Types | None, str]:
        return _flags_of(tools[PROBE], values.get("recipe"), set()), PROBE

    @field_validator("recipe")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        return known_recipe(value, _tools(info)[PROBE].recipes)


class PretrainSearch(_Calling):
    """The search of the learning rates of pre-trainings, the same for every arm: short ones, probed on held-out images.

    `options` are its length, and a warm-up that fits it.
    """

    hold_out: Between
    """Fraction of the pre-training images that is held out for the probe, of each class alike."""
    seed: Whole = SEARCH_SEED
    probe: Judge

    @classmethod
    def _types(cls, values: Mapping[str, Any], tools: Tools) -> tuple[Types | None, str]:
        known = tools[PRETRAIN].types(next(iter(tools[PRETRAIN].recipes)))
        return {name: known[name] for name in SHORT if name in known}, "the search of pre-trainings"


class TransferTask(_Calling):
    """A task that every arm is transferred to."""

    name: str = Field(default="", exclude=True)
    tool: str
    """One that takes initial weights."""
    recipe: Recipe
    """For `probe` the name of a ViT."""
    data: Text
    label_fractions: Annotated[tuple[Fraction, ...], AfterValidator(distinct), listed("[0.01, 0.1, 1]")] = (1.0,)
    """An axis of its own: every fraction is a task with its own search."""
    search: Grid | None = None
    hours: Hours | None = None
    """About how long one run takes; what is recorded goes before it."""
    groups: Grouping | None = None
    """Which test images belong together, so that these are resampled as one."""

    @classmethod
    def _types(cls, values: Mapping[str, Any], tools: Tools) -> tuple[Types | None, str]:
        tool = values.get("tool")
        found = transfer_tools(tools).get(tool) if isinstance(tool, str) else None
        # a learning rate that is searched is set by the study
        own = set() if "search" in values else {LR_FLAG}
        return (None if found is None else _flags_of(found, values.get("recipe"), own)), str(tool)

    @field_validator("tool")
    @classmethod
    def _choice(cls, value: str, info: ValidationInfo) -> str:
        return one_of(value, transfer_tools(_tools(info)))

    @field_validator("recipe", "label_fractions", "search")
    @classmethod
    def _fits(cls, value: Any, info: ValidationInfo) -> Any:
        if (tool := info.data.get("tool")) is None:
            return value
        called = _tools(info)[tool]
        if info.field_name == "recipe":
            return known_recipe(value, called.recipes)
        if info.field_name == "label_fractions" and value != (1.0,) and not called.takes(FRACTION_FLAG):
            raise wrong(f"{tool} takes no fraction of the labels; training tools do")
        if info.field_name == "search" and value is not None and not called.takes(LR_FLAG):
            raise wrong(f"{tool} takes no learning rate (it has no flag --{LR_FLAG.replace('_', '-')})", "base_lrs")
        return value


class Scenes(_Calling):
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
    scenes: Annotated[tuple[Scenes, ...], _named(Scenes)] = ()
    tokenizers: Annotated[tuple[Pretraining, ...], _named(Pretraining)] = ()
    """What arms predict the tokens of."""
    arms: Annotated[tuple[Arm, ...], _named(Arm, "label", least=1)]
    tasks: Annotated[tuple[TransferTask, ...], _named(TransferTask, least=1)]
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
        self._together_in_search(errors)
        for task in self.tasks:
            if task.search is not None and task.search.seed in self.seeds:
                said = f"{task.search.seed} is a seed of the study; the search takes another"
                errors.say(said, "tasks", task.name, "search", "seed")
        errors.refuse()
        return self

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


def pretraining_seeds(study: Study) -> tuple[int | None, ...]:
    """Return the seeds of each arm's pre-trainings; of a single one None, which is the recipe's."""
    if study.pretrain_seeds == "one":
        return (None,)
    return study.seeds if study.pretraining_seeds is None else study.pretraining_seeds


def transfer_tools(tools: Tools) -> Tools:
    """Return those that take initial weights to another task."""
    return {name: tool for name, tool in tools.items() if name != PRETRAIN and "init" in tool.own()}


def _tools(info: ValidationInfo) -> Tools:
    assert isinstance(info.context, Mapping)
    return info.context


def _flags_of(tool: Tool, recipe: Any, own: set[str]) -> Types | None:
    """Return the types of the flags that a study may give, `own` among them; None where the recipe is none."""
    if not isinstance(recipe, str) or recipe not in tool.recipes:
        return None
    return {name: hint for name, hint in tool.types(recipe).items() if name not in SET - own}


def _split(values: Mapping[Any, Any], cls: type[Part]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Return what stands under keys of a section, and the rest."""
    keys = cls.keys()
    own = {key: value for key, value in values.items() if key in keys}
    return own, {key: value for key, value in values.items() if key not in keys}
