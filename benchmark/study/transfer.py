"""A task of a study, that every arm is transferred to, in one protocol or several."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationInfo,
    field_validator,
)

from benchmark.study.calling import (
    FRACTION_FLAG,
    LENGTH_FLAGS,
    Calling,
    Grid,
    Tools,
    flags_of,
    tools_of,
    transfer_tools,
)
from benchmark.study.options import Errors, Types, known_recipe, one_of, shown, wrong
from benchmark.study.search import LR_FLAG
from benchmark.study.sections import Grouping, Part
from benchmark.study.values import (
    Fraction,
    Hours,
    Name,
    Recipe,
    Text,
    distinct,
    listed,
)


class Protocol(Part):
    """What one of several protocols of a task changes."""

    name: str = Field(default="", exclude=True)
    recipe: Recipe | None = None
    search: Grid | None = None
    """In place of the task's."""
    hours: Hours | None = None
    options: dict[str, Any] = Field(default_factory=dict, exclude=True)
    """Flags in place of the task's or beside them."""


def _read_protocols(values: Any, info: ValidationInfo) -> Any:
    """Read protocols under their names, each as a task of the tool that differs from this one."""
    if not isinstance(values, dict):
        raise ValueError("must be a mapping, `key: value` by line")
    if len(values) == 1:
        raise wrong("1 protocol; give two or more, or its flags to the task")
    tool, recipe, search = (info.data.get(name) for name in ("tool", "recipe", "search"))
    if tool is None or recipe is None:  # said there
        return ()
    errors, found = Errors(), []
    for name in errors.kept(TypeAdapter(dict[Name, Any]).validate_python, values) or {}:
        section = values[name]
        if not isinstance(section, dict):
            errors.say(f"{shown(section)} must be a mapping, `key: value` by line", name)
            continue
        for key in (TransferTask.keys() - Protocol.keys()) & section.keys():
            errors.say("is the task's, for all its protocols alike", name, key)
        given = {"tool": tool, "recipe": recipe, "data": ".", **section}
        if search is not None:  # so that no protocol has a learning rate beside it
            given.setdefault("search", {"base_lrs": [*search.base_lrs]})
        made = errors.kept(partial(TransferTask.model_validate, context=info.context), given, at=(name,))
        if made is not None:
            own = made.search if "search" in section else None
            found.append(
                Protocol(name=name, recipe=section.get("recipe"), search=own, hours=made.hours, options=made.options)
            )
    errors.refuse()
    return tuple(found)


class TransferTask(Calling):
    """A task that every arm is transferred to."""

    name: str = Field(default="", exclude=True)
    tool: str
    """One that takes initial weights."""
    recipe: Recipe
    """For `probe`, `probe_dense` and `in_context` the name of a ViT."""
    data: Text
    label_fractions: Annotated[tuple[Fraction, ...], AfterValidator(distinct), listed("[0.01, 0.1, 1]")] = (1.0,)
    """An axis of its own: every fraction is a task with its own search."""
    search: Grid | None = None
    hours: Hours | None = None
    """About how long one run takes; what is recorded goes before it."""
    groups: Grouping | None = None
    """Which test images belong together, so that these are resampled as one."""
    protocols: Annotated[tuple[Protocol, ...], BeforeValidator(_read_protocols)] = ()
    """An axis of its own: each is a task that differs from this one in what it says. Those whose searches would do the
    same runs, as protocols that differ in length alone, share them."""

    def tasks(self) -> Iterator["TransferTask"]:
        """Yield a task for each protocol, or the task itself where it has none."""
        for protocol in self.protocols:
            options = self.options
            if LENGTH_FLAGS & protocol.options.keys():  # a length takes the place of the task's, in whatever unit
                options = {name: value for name, value in options.items() if name not in LENGTH_FLAGS}
            changes: dict[str, Any] = {
                "name": f"{self.name}-{protocol.name}",
                "recipe": protocol.recipe or self.recipe,
                "search": protocol.search or self.search,
                "hours": protocol.hours or self.hours,
                "options": {**options, **protocol.options},
                "protocols": (),
            }
            yield self.model_copy(update=changes)
        if not self.protocols:
            yield self

    @classmethod
    def _types(cls, values: Mapping[str, Any], tools: Tools) -> tuple[Types | None, str]:
        tool = values.get("tool")
        found = transfer_tools(tools).get(tool) if isinstance(tool, str) else None
        # a learning rate that is searched is set by the study
        own = set() if "search" in values else {LR_FLAG}
        return (None if found is None else flags_of(found, values.get("recipe"), own)), str(tool)

    @field_validator("tool")
    @classmethod
    def _choice(cls, value: str, info: ValidationInfo) -> str:
        return one_of(value, transfer_tools(tools_of(info)))

    @field_validator("recipe", "label_fractions", "search")
    @classmethod
    def _fits(cls, value: Any, info: ValidationInfo) -> Any:
        if (tool := info.data.get("tool")) is None:
            return value
        called = tools_of(info)[tool]
        if info.field_name == "recipe":
            return known_recipe(value, called.recipes)
        if info.field_name == "label_fractions" and value != (1.0,) and not called.takes(FRACTION_FLAG):
            raise wrong(f"{tool} takes no fraction of the labels; training tools do")
        if info.field_name == "search" and value is not None and not called.takes(LR_FLAG):
            raise wrong(f"{tool} takes no learning rate (it has no flag --{LR_FLAG.replace('_', '-')})", "base_lrs")
        return value
