"""Training steps of full-size recipes beside the libraries that have them too, in turn, on random images.

MFU is the work of our step (matrix products and convolutions, as FlopCounterMode counts them), done in the time of a
program, against the measured rate of products and against the data sheet's. Peak memory is what a program allocates
while it is built and takes its first two steps, above what was there before.
"""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import mae_alone
import torch
from harness import TOLERANCE, Step, Switches, switched
from torch.utils.flop_counter import FlopCounterMode

from backbones.config import FAMILY
from engine.memory.plan import COUNTED
from perf.gpu.row import Ask, NotRun

MIB = 2**20
OURS = "ours"
KIND: dict[Switches, str] = {"fp32": "float32", "tf32": "TF32", "bf16": "bfloat16"}
Build = Callable[[], Step]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A program under one set of switches."""

    name: str
    seconds: float
    """Median of a step."""
    peak: int | None
    """Bytes; None on a CPU."""
    value: float
    """Loss of the first step."""


def interleaved(builds: dict[str, Build], switches: Switches, ask: Ask) -> tuple[list[Measured], int]:
    """Return the programs' times, a step of each in turn, after five (small: none) that warm up.

    With them come the operations of a step of the program called `ours`, two for a multiply-add.
    """
    device = torch.device(ask.device)
    warm_up, rounds = (0, 1) if ask.small else (5, 20)
    steps: dict[str, Step] = {}
    peaks: dict[str, int | None] = {}
    values: dict[str, float] = {}
    work = FlopCounterMode(display=False, custom_mapping=COUNTED)
    with switched(switches, device):
        for name, build in builds.items():
            before = _start_peak(device)
            steps[name] = build()
            with work if name == OURS else nullcontext():
                values[name] = steps[name](switches)
            peaks[name] = None
            if before is not None:
                steps[name](switches)  # beside the moments, which the first step makes
                peaks[name] = torch.cuda.max_memory_allocated() - before
        times: dict[str, list[float]] = {name: [] for name in steps}
        for number in range(warm_up + rounds):
            for name, step in steps.items():
                _wait(device)
                start = time.perf_counter()
                step(switches)
                _wait(device)
                if number >= warm_up:
                    times[name].append(time.perf_counter() - start)
    found = [
        Measured(name=name, seconds=statistics.median(times[name]), peak=peaks[name], value=values[name])
        for name in builds
    ]
    return found, work.get_total_flops()


def beside(ask: Ask, ours: Callable[[int], Build], theirs: Callable[[int], Build], *, peer: str, images: int) -> None:
    """Say the times of our step and the peer's; where memory is short, of half as many images."""
    for switches in ("fp32",) if ask.small else ("bf16", "tf32"):
        while True:
            try:
                found, flops = interleaved({peer: theirs(images), OURS: ours(images)}, switches, ask)
                break
            except torch.OutOfMemoryError:
                if images == 1:
                    raise
                ask.say(f"{switches}, {images} images", "out of memory; half as many")
                images //= 2
        _compare(ask, found, switches)
        for one in found:
            say_step(ask, one, switches, images=images, flops=flops, beside=found[0].seconds)


def say_step(
    ask: Ask, one: Measured, switches: Switches, *, images: int, flops: int, beside: float | None = None
) -> None:
    """Say a program's time, rate, memory and MFU, and its speed against another's."""
    tflops = flops / one.seconds / 1e12
    numbers = {"ms": 1e3 * one.seconds, "images_per_second": images / one.seconds, "tflops": tflops}
    told = [f"{1e3 * one.seconds:,.1f} ms", f"{images / one.seconds:,.1f} images/s"]
    if one.peak is not None:
        told.append(f"{one.peak / MIB:,.0f} MiB")
        numbers["peak"] = one.peak
    rate = ask.earlier("rates").get(f"product {KIND[switches]}", {})
    for name, of in (("tflops", "the measured rate"), ("nominal", "the nominal rate")):
        if name in rate:
            told.append(f"MFU {tflops / rate[name]:.0%} of {of}")
    if beside is not None and one.name == OURS:
        told.append(f"{beside / one.seconds:.2f}x the peer")
        numbers["ratio"] = beside / one.seconds
    ask.say(f"{one.name}, {switches}, {images} images", ", ".join(told), **numbers)


def _compare(ask: Ask, found: Sequence[Measured], switches: Switches) -> None:
    theirs, ours = found
    apart = abs(ours.value - theirs.value) / abs(theirs.value)
    verdict = "the same work" if apart <= TOLERANCE[switches] else f"NOT the same work (over {TOLERANCE[switches]:g})"
    ask.say(f"losses, {switches}", f"{apart:.1e} apart: {verdict}", apart=apart)


def _start_peak(device: torch.device) -> int | None:
    gc.collect()
    if device.type != "cuda":
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def mae_size(ask: Ask) -> tuple[Any, int]:
    """Return the architecture and the batch of MAE's steps."""
    return (replace(mae_alone.SMALL, depth=2), 4) if ask.small else (FAMILY["vit_base_patch16"], 128)


def alone(a: Any, images: int, device: torch.device) -> Step:
    """Return our step of MAE, from weights of our own."""
    return mae_alone.step_of(mae_alone.autoencoder(a).to(device), images)


def mae(ask: Ask) -> None:
    """Say the step of MAE pre-training beside transformers'."""
    import mae_step

    (a, images), at = mae_size(ask), torch.device(ask.device)
    beside(
        ask,
        lambda n: partial(mae_step.ours, a, n, at),
        lambda n: partial(mae_step.theirs, a, n, at),
        peer="transformers",
        images=images,
    )


def classification(ask: Ask) -> None:
    """Say the step of fine-tuning beside timm's."""
    import classification_step as step

    a = replace(step.VIT, embed_dim=96, depth=2, num_heads=2, image_size=(64, 64)) if ask.small else step.VIT
    _dense(ask, partial(step.ours, a=a), partial(step.theirs, a=a), peer="timm", images=4 if ask.small else 128)


def detection(ask: Ask) -> None:
    """Say the step of ViTDet at 1024 pixels beside detectron2's."""
    import vitdet_step as step

    small = replace(step.VIT, embed_dim=96, depth=2, num_heads=2, global_blocks=(1,))
    sizes = {"side": 64, "a": small, "boxes": 16} if ask.small else {"side": 1024}
    images = 1 if ask.small else 4
    _dense(ask, partial(step.ours, **sizes), partial(step.theirs, **sizes), peer="detectron2", images=images)


def segmentation(ask: Ask) -> None:
    """Say the step of UPerNet at 512 pixels beside mmseg's."""
    import upernet as step

    small = replace(step.VIT, embed_dim=96, depth=6, num_heads=2)
    sizes = {"size": 64, "a": small, "channels": 32} if ask.small else {"size": 512}
    images = 2 if ask.small else 8
    _dense(ask, partial(step.ours, **sizes), partial(step.theirs, **sizes), peer="mmseg", images=images)


def _dense(ask: Ask, ours: Callable[..., Step], theirs: Callable[..., Step], *, peer: str, images: int) -> None:
    at = torch.device(ask.device)
    name = "batch" if peer == "timm" else "images"
    beside(
        ask,
        lambda n: partial(ours, **{name: n}, device=at),
        lambda n: partial(theirs, **{name: n}, device=at),
        peer=peer,
        images=images,
    )


def compiled(ask: Ask) -> None:
    """Say MAE's step with compiled blocks beside the same without, and the seconds to compile."""
    from engine.training.block_modes import compile_blocks

    (a, images), at = mae_size(ask), torch.device(ask.device)

    def build() -> Step:
        model = mae_alone.autoencoder(a).to(at)
        compile_blocks(model, at)
        return mae_alone.step_of(model, images)

    start = time.perf_counter()
    with switched("bf16", at):
        build()("bf16")
    ask.say("compilation and first step", f"{time.perf_counter() - start:.1f} s")
    (eager, fast), flops = interleaved({OURS: partial(alone, a, images, at), "compiled": build}, "bf16", ask)
    _compare(ask, [eager, fast], "bf16")
    for one in (eager, fast):
        say_step(ask, one, "bf16", images=images, flops=flops)
    ask.say("gain", f"{eager.seconds / fast.seconds:.2f}x", ratio=eager.seconds / fast.seconds)


def batches(ask: Ask) -> None:
    """Say MAE's step at growing batches, until memory ends."""
    a, _ = mae_size(ask)
    switches: Switches = "fp32" if ask.small else "bf16"
    for images in (2, 4) if ask.small else (16, 32, 64, 128, 256, 512, 1024):
        build = partial(alone, a, images, torch.device(ask.device))
        try:
            (one,), flops = interleaved({OURS: build}, switches, ask)
        except torch.OutOfMemoryError:
            ask.say(f"ours, {switches}, {images} images", "out of memory")
            return
        say_step(ask, one, switches, images=images, flops=flops)


def profile(ask: Ask) -> None:
    """Say the operations that take the most time of an MAE step; all of them are in profile.txt."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recorded

    (a, images), at = mae_size(ask), torch.device(ask.device)
    switches: Switches = "fp32" if ask.small else "bf16"
    step = alone(a, images, at)
    activities = [ProfilerActivity.CPU] if ask.small else [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with switched(switches, at):
        for _ in range(3):
            step(switches)
        with recorded(activities=activities) as seen:
            for _ in range(1 if ask.small else 3):
                step(switches)
    events = seen.key_averages()
    key = "self_cpu_time_total" if ask.small else "self_device_time_total"
    (ask.out / "profile.txt").write_text(events.table(sort_by=key, row_limit=60) + "\n", encoding="utf-8")
    total = sum(getattr(event, key) for event in events)
    if not total:
        raise NotRun("the profiler saw no time on the device")
    for event in sorted(events, key=lambda event: -getattr(event, key))[:10]:
        spent = getattr(event, key)
        ask.say(
            event.key[:80], f"{spent / total:.1%} of {1e-3 * total:,.1f} ms, {event.count} calls", share=spent / total
        )
