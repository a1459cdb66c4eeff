"""Learning rate over a run, as a pure function of the step."""

import math

from engine.config import ScheduleConfig


def lr_factor(schedule: ScheduleConfig, step: int, *, total_steps: int, warmup_steps: int) -> float:
    """Return the share of the peak learning rate at optimiser step `step`, counted from 0.

    Warm-up is linear from `warmup_start` and reaches the peak at step `warmup_steps`. Cosine and poly then fall to
    `final` at `total_steps`, over the steps that follow the warm-up (MAE's `util/lr_sched.py`; mmengine's PolyLR);
    step multiplies by `gamma` at each milestone, a share of the whole run (ViTDet).
    """
    if step < warmup_steps:
        return schedule.warmup_start + (1 - schedule.warmup_start) * step / warmup_steps
    if schedule.kind == "constant":
        return 1.0
    if schedule.kind == "step":
        passed = sum(step >= round(share * total_steps) for share in schedule.milestones)
        return schedule.gamma**passed
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    if schedule.kind == "cosine":
        return schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * progress))
    return schedule.final + (1 - schedule.final) * (1 - progress) ** schedule.power
