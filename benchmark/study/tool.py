"""A command-line tool as a study calls it: by its flags and configuration as objects, not as text."""

import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from benchmark.compare.fairness import AtDepth, Later
from engine.flags import Leaf, Recipes, command_line, leaves, positional, rebuilt
from engine.recipe import with_augment_source
from metrics.metric import Metric


@cache
def _recipe(make: Callable[[], Any]) -> tuple[Any, dict[str, Leaf]]:
    """Return the configuration of a recipe, and its flags by name."""
    config = make()
    return config, {leaf.name: leaf for leaf in leaves(config)}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One call of a tool."""

    args: Any
    """The tool's own flags."""
    config: Any
    """Configuration of the recipe with what departs from it; None for a tool without recipes."""
    recipe: Any
    """Configuration of the recipe as it is."""
    record: Callable[[Any, Any], dict[str, Any]] | None
    """Makes `settings` of flags and configuration; None for a tool that leaves no record and repeats no work."""
    flags: Mapping[str, Leaf]
    """Fields of its configuration by the names of their flags."""
    at_depth: AtDepth | None = None
    """As of Tool."""

    @cached_property
    def settings(self) -> dict[str, Any] | None:
        """The configuration that its record would hold; None for a tool that leaves none."""
        return None if self.record is None else self.record(self.args, self.config)

    def command(self) -> list[str]:
        """Return the words of its command line, behind the tool's name."""
        return command_line(self.args, self.config, self.recipe)

    def with_option(self, name: str, value: Any) -> "Job":
        """Return the job with another value in a field of its configuration. Raises ValueError for one that is none."""
        leaf = self.flags[name]
        return replace(self, config=rebuilt(self.config, {leaf.path: leaf.value(value)}))

    def resumed(self) -> "Job":
        """Return the job that goes on where this one stopped."""
        return replace(self, args=replace(self.args, resume=True)) if hasattr(self.args, "resume") else self


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A tool."""

    args: type[Any]
    """Dataclass of its own flags; the positional names the recipe where there are recipes."""
    recipes: Recipes = field(default_factory=dict)
    """name -> function that returns a configuration, each field of which is a flag; of one name `""` the flags stand
    without a recipe before them."""
    run: Callable[[Any, Any], int]
    """Takes flags and configuration, and returns the exit code."""
    settings: Callable[[Any, Any], dict[str, Any]] | None = None
    """From flags and configuration to the one that a record would hold; None for a tool that leaves no record."""
    later: Later | None = None
    """Gives a configuration of before the fields that came after it."""
    at_depth: AtDepth | None = None
    """Gives what follows from the depth of the ViT as the recipe's depth has it."""
    metric: Metric | None = None
    """What its runs lead with; None for a tool that leaves no record."""
    records: tuple[str, ...] = ()
    """Folders of its records below that of the run; empty for one that leaves its record in the run's own."""
    preload: Callable[[], object] = lambda: None
    """Imports what a run needs: once, before runs are forked."""

    def own(self) -> dict[str, Any]:
        """Return the types of its own flags by name."""
        return self._own

    def takes(self, name: str) -> bool:
        """Return whether it has a flag, with any recipe."""
        return name in self.own() or any(name in _recipe(make)[1] for make in self.recipes.values())

    def types(self, recipe: str | None) -> dict[str, Any]:
        """Return the types of all its flags with this recipe, by name. Raises KeyError for a recipe that is none."""
        return self.own() | {name: leaf.type for name, leaf in self._flags(recipe).items()}

    def files(self, recipe: str | None) -> set[str]:
        """Return the names of its flags that are files or folders."""
        return self._paths | {name for name, leaf in self._flags(recipe).items() if leaf.is_file}

    def functions(self, recipe: str | None) -> set[str]:
        """Return the names of its flags that name a function, which a run calls."""
        return {name for name, leaf in self._flags(recipe).items() if leaf.is_code}

    def job(self, recipe: str | None, given: Mapping[str, Any]) -> Job:
        """Return the call with these flags, by name. Raises ValueError for values that make no configuration."""
        own, known = self.own(), self._flags(recipe)
        paths = self._paths  # of a configuration a file is a text
        flags = {
            name: Path(value) if name in paths and isinstance(value, str) else value
            for name, value in given.items()
            if name in own
        }
        if self.recipes and recipe:
            flags[positional(self.args)] = recipe
        args, base, config = self.args(**flags), None, None
        if self.recipes:
            base, _ = _recipe(self.recipes[recipe or ""])
            values = {name: value for name, value in given.items() if name not in own}
            config = rebuilt(base, {known[name].path: known[name].value(value) for name, value in values.items()})
            if any(known[name].is_code for name in values):
                config = with_augment_source(config)
        job = Job(args=args, config=config, recipe=base, record=self.settings, flags=known, at_depth=self.at_depth)
        _ = job.settings  # flags that contradict each other are refused here
        return job

    @cached_property
    def _own(self) -> dict[str, Any]:
        hints = typing.get_type_hints(self.args, include_extras=True)
        return {f.name: hints[f.name] for f in fields(self.args)}

    @cached_property
    def _paths(self) -> set[str]:
        """Names of its own flags that are files or folders."""
        return {name for name, hint in self._own.items() if Path in (hint, *typing.get_args(hint))}

    def _flags(self, recipe: str | None) -> dict[str, Leaf]:
        return _recipe(self.recipes[recipe or ""])[1] if self.recipes else {}
