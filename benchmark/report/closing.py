"""The last words of a study: table, verdicts, pictures, files, what went wrong, time."""

from collections.abc import Sequence
from pathlib import Path

from benchmark.compare.comparison import compare
from benchmark.compare.lines import TOKENIZER_NAME
from benchmark.compare.records import Store, open_store
from benchmark.report.export import to_markdown, write_tables
from benchmark.runner.attempt import Outcome
from benchmark.runner.progress import clock
from benchmark.runner.scheduler import STOPPED_BEFORE
from engine.spec import TaskTable


def closing_report(folder: Path, outcomes: Sequence[Outcome], tasks: TaskTable, *, seconds: float) -> str:
    """Return the report on the records below `folder`, and write its tables there."""
    parts = []
    if any(outcome.good and outcome.run.phase != "data" for outcome in outcomes):
        store = open_store(folder, tasks)
        comparison = compare(store)
        files = write_tables(comparison, folder)
        parts = [
            to_markdown(comparison).rstrip(),
            _listed("Pictures", pictures(store)),
            _listed("Tables", [str(path) for path in files]),
        ]
    else:
        parts = ["No run has completed, so there is no table."]
    counts = {status: sum(o.status == status for o in outcomes) for status in ("completed", "recorded")}
    bad = [outcome for outcome in outcomes if not outcome.good]
    if bad:
        parts.append(_listed("Runs without a result", _problems(bad)))
    parts.append(
        f"{counts['completed']} runs completed now, {counts['recorded']} were recorded already, "
        f"{len(bad)} without a result; {clock(seconds)} in all."
    )
    return "\n\n".join(parts)


def pictures(store: Store) -> list[str]:
    """Return where the pictures of tokenizers, pre-trainings and transfers are, a line per run."""
    lines = []
    for item in store.completed:
        if item.line is None and not item.pretrained and TOKENIZER_NAME not in item.record.outputs:
            continue  # of the search of a learning rate
        paths = [item.folder / name for name in item.record.pictures]
        for folder in dict.fromkeys(path.parent for path in paths):
            mine = [path for path in paths if path.parent == folder]
            lines.append(str(mine[0]) if len(mine) == 1 else f"{folder}/ ({len(mine)} pictures)")
    return lines


def _listed(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, "", *(f"  {line}" for line in lines)])


def _problems(bad: Sequence[Outcome]) -> list[str]:
    """Return a line per run that was tried or lacks another, and one for those that a stop left out."""
    lines = []
    for outcome in bad:
        log = f" (log: {outcome.run.log})" if outcome.run.log.exists() and outcome.status != "not run" else ""
        if outcome.error != STOPPED_BEFORE:
            lines.append(f"{outcome.run.name}: {outcome.status}: {outcome.error}{log}")
    left = sum(outcome.error == STOPPED_BEFORE for outcome in bad)
    return [*lines, f"{left} more: not run: {STOPPED_BEFORE}"] if left else lines
