"""The arms of a study: weights to compare, the pre-trainings that make them, and the search of their learning rates."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from benchmark.study.calling import PRETRAIN, SEARCH_SEED, Calling, Tools, flags_of, tools_of
from benchmark.study.options import Types, known_recipe, wrong
from benchmark.study.search import LR_FLAG
from benchmark.study.values import (
    Between,
    Hours,
    Positive,
    Recipe,
    Text,
    Whole,
    distinct,
    listed,
)
from engine.init_flags import InitFlags

SHORT = ("steps", "epochs", "warmup")  # flags of a short pre-training
PROBE = "probe"  # the tool that judges the learning rates of pre-trainings


class Pretraining(Calling):
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
        own = {"trust_pickle"} if "base_lrs" in values else {"trust_pickle", LR_FLAG}
        return flags_of(tools[PRETRAIN], values.get("recipe"), own), PRETRAIN

    @field_validator("recipe")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        return known_recipe(value, tools_of(info)[PRETRAIN].recipes)


class Arm(Calling):
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


class Judge(Calling):
    """The probe that judges short pre-trainings; its flags."""

    recipe: Recipe
    """Name of a ViT, whose image_size is that of the features."""

    @classmethod
    def _types(cls, values: Mapping[str, Any], tools: Tools) -> tuple[Types | None, str]:
        return flags_of(tools[PROBE], values.get("recipe"), set()), PROBE

    @field_validator("recipe")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        return known_recipe(value, tools_of(info)[PROBE].recipes)


class PretrainSearch(Calling):
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
