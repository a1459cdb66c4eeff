"""Sections of a study file that call a tool: keys of the section apart, all that stands in them are its flags."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationInfo,
    model_validator,
)

from benchmark.study.options import Errors, Types, read_options, wrong
from benchmark.study.search import LR_FLAG
from benchmark.study.sections import Part
from benchmark.study.tool import Tool
from benchmark.study.values import (
    Between,
    Name,
    Positive,
    Text,
    Whole,
    distinct,
    listed,
)
from engine.init_flags import InitFlags

FRACTION_FLAG = "label_fraction"
LENGTH_FLAGS = {"steps", "epochs", "length"}
SEARCH_SEED = 100
PRETRAIN = "pretrain"  # the tool that makes weights; the others that take some transfer them
# what a study sets itself
SET = {"recipe", "backbone", "data", "out", "resume", "seed", "arm", LR_FLAG, FRACTION_FLAG, "cache", "show"}
SET |= {f.name for f in fields(InitFlags)}
Tools = Mapping[str, Tool]


def named(cls: type[Part], name: str = "name", *, least: int = 0) -> BeforeValidator:
    """Return what reads sections under their names; a word, `random`, stands for `{random: true}`."""

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


class Grid(Part):
    """The search of the learning rate of a task, the same for every arm."""

    base_lrs: Annotated[tuple[Positive, ...], AfterValidator(distinct), listed("[2.5e-4, 5e-4, 1e-3]")]
    widen: Annotated[Whole, Field(ge=0, le=4)] = 0
    """How many further rates may be tried beyond each end, for every arm alike, where the best of some arm is that end;
    as far apart as the two at that end."""
    seed: Whole = SEARCH_SEED
    hold_out: Between | None = None
    """Fraction of the training images that is held out for it; None where `options` name other images."""
    data: Text | None = None
    """In place of the task's."""
    options: dict[str, Any] = Field(default_factory=dict, exclude=True)
    """Flags in place of the task's or beside them."""

    @model_validator(mode="after")
    def _wide(self) -> "Grid":
        if self.widen and len(self.base_lrs) < 2:
            raise wrong(f"widen: {self.widen}, and base_lrs has 1 rate; two say how far apart the further ones are")
        return self


class Calling(Part):
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
        plain, given = split(values, cls)
        inner: dict[str, Any] = {}
        if isinstance(plain.get("search"), dict):  # its flags are those of the task's tool
            plain["search"], inner = split(plain["search"], Grid)
        errors = Errors()
        made = errors.kept(handler, plain)
        types, whose = cls._types(values, tools_of(info))
        options = errors.kept(read_options, given, types, whose, cls.keys())
        searched = errors.kept(read_options, inner, types, whose, Grid.keys(), at=("search",))
        errors.refuse()
        update: dict[str, Any] = {"options": options}
        if inner:
            update["search"] = made.search.model_copy(update={"options": searched})
        return made.model_copy(update=update)


def transfer_tools(tools: Tools) -> Tools:
    """Return those that take initial weights to another task."""
    return {name: tool for name, tool in tools.items() if name != PRETRAIN and "init" in tool.own()}


def tools_of(info: ValidationInfo) -> Tools:
    """Return the tools that a study is read with."""
    assert isinstance(info.context, Mapping)
    return info.context


def flags_of(tool: Tool, recipe: Any, own: set[str]) -> Types | None:
    """Return the types of the flags that a study may give, `own` among them; None where the recipe is none."""
    if not isinstance(recipe, str) or recipe not in tool.recipes:
        return None
    return {name: hint for name, hint in tool.types(recipe).items() if name not in SET - own}


def split(values: Mapping[Any, Any], cls: type[Part]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Return what stands under keys of a section, and the rest."""
    keys = cls.keys()
    own = {key: value for key, value in values.items() if key in keys}
    return own, {key: value for key, value in values.items() if key not in keys}
