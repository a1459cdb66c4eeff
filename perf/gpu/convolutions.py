"""UPerNet's step with the ways to carry out convolutions that a run on a GPU takes, beside the step without them."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
import upernet as step
from harness import Step, Switches, training_step

from backbones.weights.normalisation import IMAGENET
from engine.device import timed_convolutions
from engine.training.block_modes import channels_last
from perf.gpu.row import Ask
from perf.gpu.steps import OURS, interleaved, say_step
from segmentation.host import build_model
from segmentation.model.upernet import upernet
from segmentation.task import SegmentationModel


def built(size: int, images: int, device: torch.device, *, turned: bool, timed: bool, **sizes: Any) -> Step:
    """Return UPerNet's step from seeded weights, with channels last and with timed convolutions or without."""
    config = step.config_of(size, **sizes)
    torch.manual_seed(0)
    nodes = upernet(config, num_classes=step.CLASSES, normalisation=IMAGENET)
    model = SegmentationModel(build_model(nodes)).train()
    if turned:
        channels_last(model)
    model.to(device)
    plain = training_step(model, lambda: torch.stack(list(model(step.batch_of(size, images)).values())).sum())

    def taken(switches: Switches) -> float:
        with timed_convolutions(timed):
            return plain(switches)

    return taken


def convolutions(ask: Ask) -> None:
    """Say the time, the memory and the loss of each of the four, in bfloat16 (on a CPU float32)."""
    small = replace(step.VIT, embed_dim=48, depth=6, num_heads=2)
    sizes: dict[str, Any] = {"a": small, "channels": 16} if ask.small else {"a": step.VIT, "channels": step.CHANNELS}
    size, images = (64, 2) if ask.small else (512, 8)
    switches: Switches = "fp32" if ask.small else "bf16"
    make = partial(built, size, images, torch.device(ask.device), **sizes)
    builds = {
        OURS: partial(make, turned=False, timed=False),
        "timed": partial(make, turned=False, timed=True),
        "channels last": partial(make, turned=True, timed=False),
        "both": partial(make, turned=True, timed=True),
    }
    found, flops = interleaved(builds, switches, ask)
    for one in found:
        say_step(ask, one, switches, images=images, flops=flops)
        told = f"loss {one.value:.6g}, {found[0].seconds / one.seconds:.2f}x the speed"
        ask.say(f"{one.name} against neither", told, ratio=found[0].seconds / one.seconds, value=one.value)
