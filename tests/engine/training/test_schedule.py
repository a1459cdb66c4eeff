"""Learning-rate schedules by hand-worked numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import Duration, OptimConfig, ScheduleConfig
from engine.training.schedule import lr_factor


def _factors(schedule: ScheduleConfig, steps: list[int], total: int = 100, warmup: int = 10) -> list[float]:
    return [lr_factor(schedule, s, total_steps=total, warmup_steps=warmup) for s in steps]


def test_cosine_with_warmup() -> None:
    # warm-up 0/10, 5/10; then half a period over the 90 steps that follow: at 55 the middle, cos(pi/2) = 0
    found = _factors(ScheduleConfig(kind="cosine"), [0, 5, 10, 55, 100])
    assert found == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0])


def test_cosine_to_a_final_share() -> None:
    assert _factors(ScheduleConfig(kind="cosine", final=0.2), [55, 100]) == pytest.approx([0.6, 0.2])


def test_steps_at_vitdet_shares() -> None:
    schedule = ScheduleConfig(kind="step", milestones=(163889 / 184375, 177546 / 184375), warmup_start=0.001)
    found = [lr_factor(schedule, s, total_steps=184375, warmup_steps=250) for s in (0, 250, 163888, 163889, 177546)]
    assert found == pytest.approx([0.001, 1.0, 1.0, 0.1, 0.01])


def test_poly() -> None:
    assert _factors(ScheduleConfig(kind="poly", power=2.0), [10, 55, 100]) == pytest.approx([1.0, 0.25, 0.0])


def test_constant_after_warmup() -> None:
    assert _factors(ScheduleConfig(kind="constant", warmup_start=0.5), [0, 10, 99]) == [0.5, 1.0, 1.0]


@given(st.sampled_from(["cosine", "step", "poly", "constant"]), st.integers(1, 500), st.integers(0, 50))
def test_never_above_the_peak_nor_below_zero(kind: str, total: int, warmup: int) -> None:
    schedule = ScheduleConfig(kind=kind, milestones=(0.5, 0.9))  # type: ignore[arg-type]
    factors = [lr_factor(schedule, s, total_steps=total, warmup_steps=warmup) for s in range(total + 1)]
    assert all(0.0 <= f <= 1.0 for f in factors)


@pytest.mark.parametrize(
    ("duration", "steps"),
    [
        (Duration(7), 7),
        (Duration(2, "epochs"), 25),
        (Duration(0.5, "epochs"), 7),
        (Duration(17, "samples"), 3),
    ],
)
def test_durations_in_steps(duration: Duration, steps: int) -> None:
    assert duration.steps(batch_size=8, dataset_size=100) == steps  # epochs: 200 / 8 = 25, 50 / 8 -> 7


@pytest.mark.parametrize(("epochs", "images", "batch"), [("2.2", 50_000, 100), ("0.1", 30, 1), ("1.1", 50_000, 250)])
def test_a_length_is_exact_in_its_decimals(epochs: str, images: int, batch: int) -> None:
    """2.2 * 50,000 is 110,000.00000000001 in binary, a step too many."""
    length = Duration.from_text(f"{epochs}epochs")
    assert length is not None
    whole = int(epochs.replace(".", "")) * images // (10 * batch)
    assert length.steps(batch_size=batch, dataset_size=images) == whole
    assert length.steps(batch_size=batch, dataset_size=images + 1) == whole + 1
    assert Duration(0.1 + 0.2, "epochs").steps(batch_size=1, dataset_size=10) == 3  # a sum of lengths


def test_negative_duration_is_refused() -> None:
    with pytest.raises(ValueError, match="-1 epochs is negative"):
        Duration(-1, "epochs").steps(batch_size=8, dataset_size=100)


@pytest.mark.parametrize(("rule", "lr"), [("linear", 4e-3), ("sqrt", 2e-3), ("none", 1e-3)])
def test_lr_rules(rule: str, lr: float) -> None:
    optim = OptimConfig(base_lr=1e-3, base_batch_size=256, lr_scaling=rule)  # type: ignore[arg-type]
    assert optim.lr(1024) == pytest.approx(lr)
