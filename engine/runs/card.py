"""The model card of a run's weights (README.md of a model on the Hugging Face hub), from the run's record alone.

It states what the record states: data, length, start, metrics, departures. Paths of this machine are no part of it.
"""

import json
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy import special

from backbones.weights.hub import catalogued
from engine.records.record import RunRecord
from engine.spec import TaskSpec
from metrics.metric import PERCENT

LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_FOLDERS = re.compile(r"(?<![\w.:/])(?:~|[A-Za-z]:)?/(?:[^\s/'\",]+/)+")  # of an absolute path, all but its last part


@dataclass(frozen=True, kw_only=True)
class Files:
    """What lies beside the card."""

    name: str
    """OWNER/NAME of the model."""
    architecture: str
    """The ViT in words."""
    timm: bool
    """Whether timm opens them; else they are in the format of this project."""
    why_not: str | None = None
    """Why timm does not."""


def check_licence(licence: str) -> None:
    """Raise ValueError for what is no identifier of a licence as the hub has them."""
    if not LICENCE.fullmatch(licence):
        raise ValueError(
            f"--licence {licence}: it should be the hub's identifier in lower case: apache-2.0, mit, "
            "cc-by-nc-4.0, other."
        )


def card(record: RunRecord, spec: TaskSpec, files: Files, *, licence: str, others: Sequence[RunRecord] = ()) -> str:
    """Return the text of README.md; `others` are the same run with other seeds, which give the metrics an interval."""
    tags = ["vit", "mae-transfer", record.task]
    head = [
        "---",
        f"license: {licence}",
        *(["library_name: timm"] if files.timm else []),
        "pipeline_tag: image-feature-extraction",
        f"tags: {json.dumps(tags)}",
        "---",
    ]
    parts = [
        "\n".join(head),
        f"# {files.name.rpartition('/')[2]}",
        f"The ViT of a run of mae-transfer: task `{record.task}`, recipe `{record.recipe}`. {files.architecture}.",
        _table(("", ""), _facts(record)),
        "## Metrics",
        _metrics(record, spec, others),
        "## Departures",
        _departures(record),
        "## Use",
        _use(files),
    ]
    return "\n\n".join(parts) + "\n"


def without_folders(text: str) -> str:
    """Return a text with no more than the last part of every absolute path."""
    return _FOLDERS.sub(".../", text)


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    epochs = record.samples_seen / record.train_images if record.train_images else math.nan
    versions = ", ".join(f"{name} {version}" for name, version in sorted(record.libraries.items()))
    return [
        ("data", f"{Path(record.data).name}, split {record.train_split}, {record.train_images:,} images"),
        ("length", f"{record.steps:,} steps, {record.samples_seen:,} samples seen ({epochs:.4g} epochs)"),
        ("started from", _start(record)),
        ("seed", str(record.seed)),
        ("precision", f"{record.precision}, {record.world_size} process{'es' * (record.world_size > 1)}"),
        ("made with", f"{versions}; code at {record.git_commit or 'an unknown commit'}"),
        ("ended", record.ended or "unknown"),
    ]


def _start(record: RunRecord) -> str:
    """Return what the run started from, with its licence where the catalogue knows it."""
    if record.weights_sha256 is None and record.weights_path is None:
        return "random weights"
    named = record.weights_name or Path(record.weights_path or "").name
    digest = "" if record.weights_sha256 is None else f", sha256 {record.weights_sha256}"
    try:
        entry = catalogued(record.weights_name or record.weights_path or "")
    except ValueError:
        entry = None
    known = "" if entry is None else f"; its licence: {entry.licence or 'not stated'}"
    return f"{named} ({record.weights_source}{digest}{known})"


def _metrics(record: RunRecord, spec: TaskSpec, others: Sequence[RunRecord]) -> str:
    if not record.metrics:
        return "None was recorded."
    units = {metric.name: metric.unit for scores in spec.scores for metric in scores.metrics}
    rows = []
    for name, value in sorted(record.metrics.items(), key=lambda item: (item[0] != record.primary_metric, item[0])):
        unit = units.get(name, "")
        title = f"{name} ({'percent' if unit == PERCENT else unit})" if unit else name
        over_seeds = _over_seeds([value, *(other.metrics.get(name, math.nan) for other in others)])
        rows.append((title, _number(value), *(over_seeds if others else ())))
    where = f"value on {record.val_images:,} images of split {record.val_split}, after the last step"
    if not others:
        return _table(("metric", where), rows) + "\n\nOne run with one seed."
    seeds = ", ".join(str(other.seed) for other in sorted((record, *others), key=lambda run: run.seed))
    columns = ("metric", f"{where}, of these weights (seed {record.seed})", "mean of the seeds", "sd", "95 % interval")
    said = (
        f"{len(others) + 1} runs with the seeds {seeds}. The interval is Student's t of the mean over seeds, on these "
        "images; another set of images would add to it."
    )
    return f"{_table(columns, rows)}\n\n{said}"


def _over_seeds(values: Sequence[float]) -> tuple[str, str, str]:
    """Return mean, standard deviation (n - 1) and the 95 % interval of the mean over seeds, as text."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return ("no number",) * 3
    mean, sd = statistics.fmean(values), statistics.stdev(values)
    half = float(special.stdtrit(len(values) - 1, 0.975)) * sd / math.sqrt(len(values))
    return _number(mean), _number(sd), f"{_number(mean - half)} to {_number(mean + half)}"


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "no number"


def _departures(record: RunRecord) -> str:
    if not record.departures:
        return "The recipe states no difference from a published one, and the run changed nothing of it."
    return "\n".join(f"* {_plain(without_folders(text))}" for text in record.departures)


def _use(files: Files) -> str:
    if files.timm:
        lines = [
            f'timm.create_model("hf_hub:{files.name}", pretrained=True, num_classes=0)  # or "local-dir:FOLDER"',
            f"python tools/train_cls.py RECIPE --data DIR --out RUN --init hf:{files.name} --init-source timm",
        ]
        return "```\n" + "\n".join(lines) + "\n```"
    command = f"python tools/train_cls.py RECIPE --data DIR --out RUN --init hf:{files.name}"
    return f"```\n{command}\n```\n\nThe format is that of mae-transfer. timm does not open it: {files.why_not}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    body = (f"| {' | '.join(map(_plain, row))} |" for row in rows)
    return "\n".join([f"| {' | '.join(columns)} |", "|" + "---|" * len(columns), *body])


def _plain(text: str) -> str:
    """Return a text in one line that neither ends a cell nor is markup."""
    return re.sub(r"([|<>`*_\[\]])", r"\\\1", " ".join(text.split()))
