"""A run's folder belongs to one run at a time: the first process holds its lock for all processes of the run."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from engine.records.identity import write_identity
from engine.records.record import PICTURES, WEIGHTS_NAME
from engine.task import Task, WritesStart
from engine.training.processes import from_first
from engine.training.resume import FOLDER
from files.locking import locked
from files.writing import remove_leftovers, replacing


@contextmanager
def occupied(out: Path, fabric: Fabric, check: Callable[[], None]) -> Iterator[list[str]]:
    """Hold the folder of a run, which `check` refuses or not once it is held; give warnings.

    What killed writers left unfinished is removed.

    Raises LockedError (a ValueError) that names the process which holds it, on all processes alike.
    """
    with ExitStack() as held:

        def take() -> list[str]:
            note = held.enter_context(locked(out))
            check()
            left = [name for folder in (out, out / FOLDER, out / PICTURES) for name in remove_leftovers(folder)]
            removed = f"removed what a killed process left unfinished in {out}: {', '.join(left)}."
            return [*([note] if note else []), *([removed] if left else [])]

        yield from_first(fabric, take)


def begin(out: Path, task: Task, identity: dict[str, Any]) -> None:
    """Write what a run's folder begins with: the report of its weights, the state that it goes on from, config.json."""
    if lines := task.facts.weights.all_lines():  # none of random ones
        with replacing(out / WEIGHTS_NAME) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if isinstance(task, WritesStart):
        task.write_start(out)
    write_identity(out, identity)
