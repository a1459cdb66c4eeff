"""What a run says of itself before its first step and after its last."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from lightning_fabric import Fabric

from backbones.param_groups import ParamGroup
from engine.config import RunConfig
from engine.device import device_name
from engine.records.record import RECORD_NAME, RunRecord
from engine.records.recording import Named, precision_name
from engine.task import Task
from engine.training.ema import EMA
from engine.training.log import duration
from engine.training.optim import group_table


def introduction(
    task: Task,
    run: RunConfig,
    named: Named,
    fabric: Fabric,
    *,
    groups: Sequence[ParamGroup],
    ema: EMA | None,
    steps: int,
    peak_lr: float,
) -> Iterator[str]:
    """Yield its lines: the data, the weights, the batch, the learning rates and in what the recipe departs from its
    source."""
    facts = task.facts
    yield f"{task.name} {named.recipe}: {facts.train_images} training and {facts.val_images} validation images"
    for line in facts.data_notes:
        yield f"  data: {line}"
    if facts.weights.source == "random":
        yield "  weights: RANDOM (no --init was given)"
    for line in facts.weights.lines():
        yield f"  weights: {line}"
    lr_rule = f"{run.optim.base_lr:g} at batch {run.optim.base_batch_size}, {run.optim.lr_scaling} rule"
    each = run.batch_size // (run.accumulate * fabric.world_size)
    shared = f"{fabric.world_size} process(es) x {run.accumulate} micro-batch(es) x {each} images"
    yield f"  batch {run.batch_size} ({shared}), {steps} steps, peak lr {peak_lr:.3g} ({lr_rule})"
    yield f"  departures: {'; '.join(named.departures) or 'none, the recipe as it is'}"
    yield f"  {device_name(fabric.device)}, {fabric.world_size} process(es), {precision_name(fabric)}"
    for line in group_table(groups, peak_lr):
        yield f"  {line}"
    if ema is not None:
        yield f"  evaluated and exported: the EMA of the weights (decay {ema.decay:g} per step)"


def doubts(ema: EMA | None, *, steps: int, warmup: int) -> list[str]:
    """Return what speaks against a run of `steps`, so few that it is hardly one of its recipe."""
    found = []
    if ema is not None and (share := ema.initial_share(steps)) > 0.01:
        found.append(f"the EMA still holds {share:.0%} of the initial weights at the end.")
    if 0 < steps <= warmup:
        found.append(f"the warm-up of {warmup} steps covers the whole run of {steps}; --warmup shortens it.")
    return found


def conclusion(record: RunRecord, out: Path) -> Iterator[str]:
    """Yield the last lines of a run: where its results lie, or how it goes on."""
    if record.status == "interrupted":
        if record.steps:
            yield f"interrupted by {record.error} after step {record.steps}; saved. Continue with --resume."
        else:
            yield f"interrupted by {record.error} before the first step: nothing to save. Begin again with --resume."
    if record.status == "completed":
        yield f"done in {duration(record.cost.total_seconds)}: {out / RECORD_NAME}"
        for name in (*record.outputs, *record.pictures):
            yield f"  {out / name}"
