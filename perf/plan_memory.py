"""The planner's memory against that of real training steps on this machine, and what is left between them.

python perf/plan_memory.py [NAME ...]

Each case runs in a process of its own: two steps of the recipe's model on synthetic data, by the kernels of a CPU. What
was measured is the peak resident set less what the process had before the model was built; the planner counts tensors
alone, not the allocator's rounding nor the workspaces of kernels. Detection is planned without matching and suppression
(detection/plan.py) and measured with them.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from detectron2.structures import BitMasks, Boxes, Instances

from classification import plan as of_classification
from classification.recipes import RECIPES as CLASSIFICATION
from detection import plan as of_detection
from detection.recipes.all import RECIPES as DETECTION
from engine.memory.plan import Plannable, footprint
from pretraining import plan as of_pretraining
from pretraining.recipes import RECIPES as PRETRAINING
from pretraining.tokenizer.config import DVAEConfig
from segmentation import plan as of_segmentation
from segmentation.recipes import RECIPES as SEGMENTATION

CLASSES, OBJECTS = 80, 128  # a quarter of 512 sampled boxes: as many as the heads take, which is what is planned
MIB = 2**20
# freed blocks of 64 KiB and more go back to the system at once, so that the resident set follows the tensors
GLIBC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A recipe at a size that a small machine can train."""

    images: int
    precision: str
    build: Callable[[], Plannable]
    real: Callable[[Plannable, int], torch.Tensor] | None = None
    """The loss as in training, where the planned one is simpler."""


def _detector(side: int, *, saving: bool = False) -> Plannable:
    recipe = DETECTION["vitdet_base"]()
    run = replace(recipe.run, activation_checkpointing=saving)
    config = replace(recipe, image_size=side, run=run)
    return of_detection.plannable(config, num_classes=CLASSES, masks=True)


def _detection_loss(side: int) -> Callable[[Plannable, int], torch.Tensor]:
    def loss(planned: Plannable, images: int) -> torch.Tensor:
        return torch.stack([x.float() for x in planned.model(_objects(side, images)).values()]).sum()

    return loss


def _objects(side: int, images: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(OBJECTS, 2, generator=generator) * 0.6 * side
    box = torch.cat([corner, corner + (0.1 + 0.3 * torch.rand(OBJECTS, 2, generator=generator)) * side], dim=1)
    mask = torch.zeros(OBJECTS, side, side, dtype=torch.bool)
    for one, (left, top, right, bottom) in zip(mask, box.int().tolist(), strict=True):
        one[top:bottom, left:right] = True
    objects = Instances((side, side))
    objects.gt_boxes, objects.gt_masks = Boxes(box), BitMasks(mask)
    objects.gt_classes = torch.arange(OBJECTS) % CLASSES
    image = torch.randint(0, 256, (3, side, side), generator=generator, dtype=torch.uint8)
    return [{"image": image, "instances": objects, "height": side, "width": side} for _ in range(images)]


def _segmentor(side: int) -> Plannable:
    recipe = SEGMENTATION["mae_base_mmseg"]()
    config = replace(recipe, backbone=recipe.backbone.at(side, side))
    return of_segmentation.plannable(config, num_classes=150)


def _mae(decay: float | None = None) -> Plannable:
    recipe = PRETRAINING["mae_base"]()
    return of_pretraining.builder(replace(recipe, run=replace(recipe.run, ema_decay=decay)))()


def _pretraining(name: str) -> Plannable:
    recipe = PRETRAINING[name]()
    run = replace(recipe.run, activation_checkpointing=False)
    return of_pretraining.builder(replace(recipe, run=run))()


def _dvae(side: int) -> Plannable:
    """Return the tokenizer of DALL-E's vocabulary at the size that BEiT's sees images in."""
    config = DVAEConfig(run=PRETRAINING["small_dvae"]().run, image_size=(side, side))
    return of_pretraining.builder(config)()


def _beit_loss(planned: Plannable, images: int) -> torch.Tensor:
    config = PRETRAINING["beit_base"]()
    mask = torch.zeros(images, config.backbone.grid[0] * config.backbone.grid[1], dtype=torch.bool)
    mask[:, : config.masked_patches] = True
    batch = (
        torch.zeros(images, 3, *config.backbone.image_size),
        torch.zeros(images, 3, *config.token_size),
        mask,
        [],
    )
    return torch.stack(list(planned.model(batch).values())).sum()


def _classifier() -> Plannable:
    return of_classification.plannable(CLASSIFICATION["mae_base"](), num_classes=1000)


CASES = {
    "MAE ViT-B/16 224 px": Case(images=16, precision="32-true", build=_mae),
    "MAE ViT-B/16 224 px, bf16, EMA": Case(images=16, precision="bf16-mixed", build=lambda: _mae(0.999)),
    "BEiT ViT-B/16 224 px": Case(
        images=8, precision="32-true", build=lambda: _pretraining("beit_base"), real=_beit_loss
    ),
    "MoCo v3 ViT-B/16 224 px, bf16": Case(images=8, precision="bf16-mixed", build=lambda: _pretraining("moco_v3_base")),
    "dVAE 112 px": Case(images=8, precision="32-true", build=lambda: _dvae(112)),
    "classification ViT-B/16 224 px": Case(images=8, precision="32-true", build=_classifier),
    "classification ViT-B/16 224 px, bf16": Case(images=8, precision="bf16-mixed", build=_classifier),
    "UPerNet ViT-B 256 px, bf16": Case(images=4, precision="bf16-mixed", build=lambda: _segmentor(256)),
    "UPerNet ViT-B 512 px": Case(images=2, precision="32-true", build=lambda: _segmentor(512)),
    "ViTDet-B 512 px": Case(images=1, precision="32-true", build=lambda: _detector(512), real=_detection_loss(512)),
    "ViTDet-B 512 px, bf16": Case(
        images=1, precision="bf16-mixed", build=lambda: _detector(512), real=_detection_loss(512)
    ),
    "ViTDet-B 512 px, activation checkpointing": Case(
        images=1, precision="32-true", build=lambda: _detector(512, saving=True), real=_detection_loss(512)
    ),
}


def measured(case: Case) -> int:
    """Return the bytes that real steps added to this process at their peak."""
    before = _resident("VmRSS")
    take_steps(case, case.images, torch.device("cpu"))
    return _resident("VmHWM") - before


def take_steps(case: Case, images: int, device: torch.device) -> None:
    """Build the model and take two steps; the first makes the moments."""
    with device:  # images and labels of the plans are made where the model is
        planned = case.build()
    if planned.run.activation_checkpointing:
        for module in planned.model.modules():
            if hasattr(module, "activation_checkpointing"):
                module.activation_checkpointing = True  # type: ignore[assignment]
    planned.model.to(device).train()
    trained = [parameter for parameter in planned.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)
    average = [parameter.detach().clone() for parameter in trained] if planned.run.ema_decay is not None else []
    for _ in range(2):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=case.precision != "32-true"):
            if case.real:
                loss = case.real(planned, images)
            else:
                with device:
                    loss = planned.loss(images)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    del average


def _resident(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    if found is None:
        raise OSError(f"/proc/self/status: holds no {name}; this benchmark needs Linux.")
    return int(found[1]) * 1024


def main() -> None:
    """Print a Markdown table; with `--only NAME` the measured bytes of one case."""
    torch.set_float32_matmul_precision("medium")
    if sys.argv[1:2] == ["--only"]:
        print(measured(CASES[sys.argv[2]]))
        return
    print("| training step | images | planned MiB | measured MiB | planned / measured |\n|---|---|---|---|---|")
    for name in sys.argv[1:] or CASES:
        case = CASES[name]
        planned = footprint(case.build, images=case.images, precision=case.precision).peak
        command = [sys.executable, "-W", "ignore", __file__, "--only", name]
        done = subprocess.run(command, env={**os.environ, **GLIBC}, check=True, capture_output=True, text=True)
        real = int(done.stdout.splitlines()[-1])
        print(
            f"| {name} | {case.images} | {planned / MIB:,.0f} | {real / MIB:,.0f} | {planned / real:.2f} |", flush=True
        )


if __name__ == "__main__":
    main()
