"""Whether the pre-trainings of a study see as much: samples, or MACs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ROUNDING = 1e-9  # share: 0.1 epochs with 3 crops are 0.3 epochs


@dataclass(frozen=True, kw_only=True)
class Length:
    """How long a pre-training is, from its configuration."""

    arm: str
    value: float
    unit: str
    batch_size: int
    """Loaded images of a step."""
    repeats: int = 1
    """Crops of every loaded image, each of which is a pass."""

    @classmethod
    def of(cls, arm: str, config: Mapping[str, Any]) -> "Length":
        """Return the length that a configuration states."""
        run = config["run"]
        value, unit, batch = run["length"]["value"], run["length"]["unit"], run["batch_size"]
        if unit == "samples":
            value, unit = value / batch, "steps"
        return cls(arm=arm, value=value, unit=unit, batch_size=batch, repeats=config.get("repeats", 1))

    @property
    def samples(self) -> tuple[str, float]:
        """Samples seen, or epochs, which are as many of the same images, both with every crop counted."""
        each = self.value * self.repeats
        return ("images", each * self.batch_size) if self.unit == "steps" else (self.unit, each)

    def __str__(self) -> str:
        unit, samples = self.samples
        crops = f", {self.repeats} crops of each" if self.repeats > 1 else ""
        if self.unit == "steps":
            return f"{samples:,.0f} images ({self.value:g} steps of {self.batch_size}{crops})"
        return f"{samples:g} {unit}" + (f" ({self.value:g}{crops})" if crops else "")


def unequal_samples(lengths: Sequence[Length]) -> str | None:
    """Return what is unequal in the samples seen of the arms, None where they are equal."""
    seen = [length.samples[1] for length in lengths]
    if len({length.samples[0] for length in lengths}) < 2 and math.isclose(max(seen), min(seen), rel_tol=ROUNDING):
        return None
    each = "; ".join(f"{length.arm} {length}" for length in lengths)
    return (
        f"budget.match: samples, but the pre-trainings see different numbers of images: {each}. Give all of them "
        "the same steps and batch_size (or the same epochs) times repeats, or state `match: flops` or `match: none`."
    )


def flops_lengths(
    lengths: Sequence[Length], flops: Mapping[str, float | None], reference: str
) -> dict[str, dict[str, float]]:
    """Return by arm the length, as a flag and its value, at which it costs as many MACs as the reference arm.

    `flops` are of training on one sample. Raises ValueError where they are not known, or the lengths are in
    different units.
    """
    unknown = [length.arm for length in lengths if not flops.get(length.arm)]
    if unknown:
        raise ValueError(
            f"budget.match: flops, but the MACs per image of {', '.join(unknown)} are not known: no record of "
            "such a run lies in the study's folder. Give `flops_per_image` under `pretrain` (the record of a run of "
            "one step, in another folder, has it under cost), or state `match: samples`."
        )
    units = {length.unit for length in lengths}
    if len(units) > 1:
        raise ValueError(
            f"budget.match: flops, but the lengths are in {' and '.join(sorted(units))}; give all in steps."
        )
    first = next(length for length in lengths if length.arm == reference)
    found: dict[str, dict[str, float]] = {}
    for length in lengths:
        if length.arm == reference:
            continue
        ratio = (flops[reference] or 0.0) / (flops[length.arm] or 1.0)
        if length.unit == "steps":
            steps = first.samples[1] * ratio / (length.batch_size * length.repeats)
            found[length.arm] = {"steps": max(1, round(steps))}
        else:
            found[length.arm] = {length.unit: first.samples[1] * ratio / length.repeats}
    return found
