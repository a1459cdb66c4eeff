"""The comparison as one HTML page that needs no other file and no network."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmark.compare.comparison import OWN_TASK, Comparison
from benchmark.compare.records import Stored
from benchmark.report.about import about
from benchmark.report.class_tables import class_grids
from benchmark.report.cost_table import cost_grid
from benchmark.report.escape import visible
from benchmark.report.figures import (
    MOST_LINES,
    cost_picture,
    curves_picture,
    data_url,
    differences_picture,
    embedded,
    same_pictures,
    without_cost,
)
from benchmark.report.names import listed, title
from benchmark.report.page_tables import verdict_grids
from benchmark.report.protocols import protocol_grid
from benchmark.report.scaling import scaling_grid, scaling_picture
from benchmark.report.tables import (
    DASH,
    FULL_SCALE_TITLE,
    Grid,
    full_scale_grid,
    published_grid,
    rank_grid,
    record_lines,
    result_grid,
)
from benchmark.report.tuning import tuning_grid
from benchmark.report.use_table import use_grid
from benchmark.report.verdict import verdicts
from engine.config import as_json
from engine.records.record import standing

TEMPLATE = "report.html.j2"
SUPERVISED = "supervised pre-training"
PICTURES_PER_TASK = 3
MOST_CONFIGS = 60  # runs whose whole configuration is in the page
RUNS_CAPTION = "Every record that was read, in the order of the folders."


def to_html(comparison: Comparison, *, images: bool = True) -> str:
    """Return the page: verdicts, tables, pictures of every arm on the same images, and where each number is from.

    Without `images` the page holds charts alone, no picture that shows an image of the data. A curve, a picture or
    scores of classes that cannot be read are left out, and said.
    """
    *tasks, overall = verdicts(comparison)
    notes: list[str] = []
    classes = class_grids(comparison, notes)
    pictures = _pictures(comparison, notes) if images else []
    curves = _both(curves_picture(comparison, notes), lambda: curves_picture(comparison, [], narrow=True))
    published, full_scale = published_grid(comparison), full_scale_grid(comparison)
    scaling, tuning = scaling_picture(comparison), tuning_grid(comparison)
    differences, tests = verdict_grids(comparison)
    wanted = {
        "Results": True,
        "Published": bool(published.rows),
        "Full scale": full_scale is not None,
        "Scaling": scaling is not None,
        "Tuning": tuning is not None,
        "Cost": True,
        "Training": curves is not None,
        "Classes": bool(classes),
        "Pictures": bool(pictures),
        "Provenance": True,
    }
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template(TEMPLATE).render(
        title=_title(comparison),
        about=about(comparison),
        claim=title(comparison.claim),
        overall=overall,
        verdicts=tasks,
        sections=[name for name, there in wanted.items() if there],
        results=result_grid(comparison),
        differences=differences,
        tests=tests,
        differences_picture=_both(
            differences_picture(comparison), lambda: differences_picture(comparison, narrow=True)
        ),
        ranks=rank_grid(comparison),
        protocols=protocol_grid(comparison),
        published=published,
        full_scale=full_scale,
        full_scale_title=FULL_SCALE_TITLE,
        scaling=_both(_url_of(scaling), lambda: _url_of(scaling_picture(comparison, narrow=True))),
        scaling_table=None if scaling is None else scaling_grid(comparison),
        tuning=tuning,
        costs=cost_grid(comparison),
        use=use_grid(comparison),
        cost_picture=_both(cost_picture(comparison), lambda: cost_picture(comparison, narrow=True)),
        undrawn=", ".join(map(title, without_cost(comparison))),
        curves_picture=curves,
        most_lines=MOST_LINES,
        per_class=classes,
        pictures=pictures,
        images=images,
        dash=DASH,
        records=[*record_lines(comparison), *notes],
        runs=_runs(comparison),
        configs=_configs(comparison),
    )
    return visible(page)


def _both(wide: str | None, narrow: Callable[[], str | None]) -> tuple[str, str] | None:
    """Return a picture for wide screens and one for narrow ones, None where there is none."""
    if wide is None:
        return None
    found = narrow()
    assert found is not None
    return wide, found


def _url_of(png: bytes | None) -> str | None:
    return None if png is None else data_url(png)


def _title(comparison: Comparison) -> str:
    others = [SUPERVISED if arm == OWN_TASK else title(arm) for arm in comparison.others]
    return f"Does {title(comparison.claim)} transfer better than {listed(others, 'or')}?"


def _pictures(comparison: Comparison, notes: list[str]) -> list[tuple[str, list[tuple[str, list[tuple[str, str]]]]]]:
    """Return (task, [(name, [(arm, data URL)])]): reconstructions first, then what every arm predicts."""
    shown = []
    completed = comparison.store.completed
    for line in (None, *comparison.lines):  # what pre-training by pixels reconstructs has no line
        mine = [item for item in completed if item.line == line and (line is not None or item.record.task == "mae")]
        found = [
            (name, [("" if line is None else title(arm), url) for arm, path in paths if (url := _url(path, notes))])
            for name, paths in same_pictures(mine, comparison.arms)
            if not name.endswith("curves.png")
        ][:PICTURES_PER_TASK]
        if found:
            shown.append(("Reconstructions" if line is None else line.label.capitalize(), found))
    return shown


def _url(path: str, notes: list[str]) -> str | None:
    try:
        return embedded(path)
    except (OSError, ValueError) as error:
        notes.append(f"Picture left out: {error}")
        return None


def _runs(comparison: Comparison) -> Grid:
    head = ("run", "status", "task", "recipe", "weights", "weights sha256", "seed", "steps", "departures", "commit")
    return Grid(
        caption=RUNS_CAPTION,
        head=(*head, "device", "precision", "started"),
        rows=tuple(_run(item, comparison.store.root) for item in comparison.store.stored),
    )


def _run(item: Stored, root: Path) -> tuple[str, ...]:
    record = item.record
    return (
        str(item.folder.relative_to(root)),
        standing(item.folder, record),
        record.task,
        record.recipe,
        title(item.arm),
        (record.weights_sha256 or DASH)[:12],
        str(record.seed),
        f"{record.steps} of {record.total_steps}",
        "; ".join(record.departures) or DASH,
        (record.git_commit or DASH)[:18],
        f"{record.device}, {record.world_size} process(es)",
        record.precision,
        record.started,
    )


def _configs(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Return (run, command that repeats it, JSON) of what made each run, without its results."""
    kept = ("config", "data", "data_notes", "unreadable_images", "weights_path", "weights_report", "libraries")
    root = comparison.store.root
    return [
        (str(item.folder.relative_to(root)), item.command, json.dumps(_only(as_json(item.record), kept), indent=1))
        for item in comparison.store.stored[:MOST_CONFIGS]
    ]


def _only(values: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: values[name] for name in names}
