"""A plan as lines for people."""

from dataclasses import dataclass

from engine.config import RunConfig
from engine.memory.plan import Fit, Plannable

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Devices:
    """What a run is planned for."""

    gpus: int
    memory: int
    """Bytes of each."""
    precision: str
    tflops: float | None
    """Rate of each in 10^12 floating-point operations per second (a multiply-add is two), as its data sheet has it."""
    utilisation: float
    """Share of it that training reaches."""


def lines(planned: Plannable, fit: Fit, devices: Devices, *, images: int | None, shards: int) -> list[str]:
    """Return parameters, work, memory, batch and hours; `images` is the size of the training set where it is known."""
    run, found = planned.run, fit.footprint
    each = found.on_each_of(shards)
    told = [
        f"parameters: {found.parameters / 1e6:.2f} M, {found.trained / 1e6:.2f} M of them trained",
        f"MACs per image: {found.forward / 1e9:,.1f} G forward, {found.training / 1e9:,.1f} G forward and "
        "backward (matrix products and convolutions)",
        f"memory of one GPU at {found.images} image(s) per forward pass, {devices.precision}:",
        _line("weights and buffers", found.weights, shards),
        *([_line("frozen, beside the model (tokenizer)", found.frozen)] if found.frozen else []),
        _line("gradients", found.gradients, shards),
        _line("moments of AdamW", found.moments, shards),
        *([_line("EMA of the weights", found.ema, shards)] if found.ema else []),
        _line("activations", found.activations),
        f"    {found.activations / found.images / GIB:8.3f} GiB per image"
        + (", with activation checkpointing" if run.activation_checkpointing else ""),
        _line("peak of a step", each) + f", of {devices.memory / GIB:.1f} GiB",
        f"batch: {run.batch_size} = {devices.gpus} GPU(s) x {fit.accumulate} micro-batch(es) x {fit.images} image(s)"
        f" (--max-per-device {fit.images})",
    ]
    if planned.simplified:
        told.append(f"simplified: {planned.simplified}")
    return [*told, *_hours(run, found.training, devices, images)]


def _hours(run: RunConfig, training: int, devices: Devices, images: int | None) -> list[str]:
    if run.length.unit == "epochs" and images is None:
        return [f"length: {run.length.value:g} epochs; hours need the size of the training set (--images)"]
    steps = run.length.steps(batch_size=run.batch_size, dataset_size=images or 0)
    seen = steps * run.batch_size
    length = f"length: {steps:,} steps, {seen:,} samples seen"
    if devices.tflops is None:
        return [f"{length}; hours need the rate of a GPU (--tflops)"]
    rate = devices.gpus * devices.tflops * 1e12 * devices.utilisation
    hours = 2 * training * seen / rate / 3600
    return [
        f"{length}: {hours:,.1f} hours, {hours * devices.gpus:,.0f} GPU-hours, at {devices.tflops:g} TFLOP/s x "
        f"{devices.utilisation:g} (an assumption: --utilisation); data loading, evaluation and exchange left out"
    ]


def _line(name: str, size: int, shards: int = 1) -> str:
    cut = f" ({size / GIB:.2f} GiB in {shards} shards)" if shards > 1 else ""
    return f"    {size / shards / GIB:8.2f} GiB {name}{cut}"
