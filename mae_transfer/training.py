"""Training from Python: the flags of a tool as keyword arguments, its errors as exceptions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.flags import words
from engine.launch import carried_out, check_paths, configured
from engine.spec import TaskSpec, of_tool, spec_for
from mae_transfer.tasks import TASKS


def train_run(tool: str, recipe: str, flags: Mapping[str, Any]) -> Path:
    """Train a recipe with flags of its tool, by their names with underscores, and return the run's folder.

    Raises what `mae_transfer.train` says.
    """
    specs = _specs(tool)
    if "show" in flags:
        raise ValueError("show prints what a command line makes of a recipe and trains nothing; leave it out.")
    argv = [word for name, value in flags.items() for word in words(name, list_as_tuple(value))]
    try:
        args, config = configured([recipe, *argv], specs, doc=None)
    except SystemExit as left:  # what tyro has printed says which flag is wrong
        raise ValueError(
            f"{' '.join(argv)}: flags or values that {tool} {recipe} does not take; `python tools/{tool}.py {recipe} "
            "--help-all` lists them."
        ) from left
    check_paths(args, config)
    record = carried_out(args, config, spec_for(specs, config))
    if record.status != "completed":
        raise KeyboardInterrupt(
            f"{args.out}: {record.status} at step {record.steps} of {record.total_steps}; resume=True continues it."
        )
    return args.out


def list_as_tuple(value: Any) -> Any:
    """Return a list as a tuple: a flag of several words."""
    return tuple(value) if isinstance(value, list) else value


def _specs(tool: str) -> tuple[TaskSpec, ...]:
    """Return the tasks that a tool trains. Raises ValueError for one that trains none."""
    trained = dict.fromkeys(spec.tool for spec in TASKS.values() if spec.module is not None)
    if tool not in trained:
        raise ValueError(f"no tool of training is called {tool!r}; there are: {', '.join(trained)}.")
    return of_tool(TASKS, tool)
