"""A step on a device against one on the CPU in float32: outputs, losses, gradients, and an overflow of float16."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor
from torch.amp import GradScaler

from backbones.attention import gpu_kernels
from backbones.config import ViTConfig
from backbones.vit import ViT
from engine.device import make_fabric
from engine.training.seeding import seed_all
from mae_transfer.tasks import TASKS
from scenes.layouts import ScenesIndex
from tests.smaller import small_vit, smaller

RECIPES = {
    "mae": "mae_base",
    "classification": "mae_base",
    "detection": "vitdet_base",
    "segmentation": "mae_base_mmseg",
    "moco_v3": "moco_v3_base",
}
WINDOWS = "windows and whole images"
BASE = TASKS["mae"].recipes["mae_base"]().backbone
VITS: dict[str, ViTConfig] = {
    "plain": BASE,
    WINDOWS: TASKS["detection"].recipes["vitdet_base"]().backbone,
    "a bias per block": replace(BASE, relative_position="table"),
}
# of float32 on another device: kernels that sum in another order
OUTPUTS, LOSSES, GRADIENTS = 1e-5, 1e-4, 1e-3
BFLOAT16, FLOAT16 = 2e-2, 5e-3  # of 8 and 11 bits, through four blocks and a head
OVERFLOWS, FITS = 2.0**40, 2.0**10  # loss scales


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A step without the optimiser."""

    losses: dict[str, float]
    gradient: Tensor
    """All of it, on the CPU."""


def built(name: str, scenes: ScenesIndex, folder: Path) -> tuple[Any, Any]:
    """Return a small task with seeded weights, and a batch of it."""
    spec = TASKS[name]
    config = smaller(spec.recipes[RECIPES[name]](), folder)
    data = {"detection": scenes.coco, "segmentation": scenes.ade20k}.get(name, scenes.imagenet)
    seed_all(0)
    task = spec.build(config, data=data, init=None)
    with torch.no_grad():
        for parameter in task.model.parameters():  # what begins at zero (relative positions) is of use
            parameter.add_(0.01 * torch.randn(parameter.shape))
    seed_all(1)
    return task, task.collate([task.train_data[index] for index in range(4)])


def taken(fabric: Fabric, task: Any, batch: Any) -> Taken:
    """Return a step's numbers."""
    module: Any = fabric.setup_module(task.model.train())
    seed_all(2)
    losses = module(fabric.to_device(batch))
    fabric.backward(torch.stack([value.float() for value in losses.values() if value.requires_grad]).sum())
    gradient = torch.cat([p.grad.flatten().float().cpu() for p in task.model.parameters() if p.grad is not None])
    return Taken(losses={key: float(value.detach()) for key, value in losses.items()}, gradient=gradient)


def apart(one: Tensor, other: Tensor) -> float:
    """Return the relative distance of one from the other."""
    return float((one.cpu().float() - other).norm() / other.norm())


@pytest.mark.parametrize("form", VITS)
def test_outputs(form: str, device: str, comparable: None) -> None:
    vit = ViT(small_vit(VITS[form]), class_token=form != WINDOWS)
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    image = torch.randn(2, 3, 64, 64)
    torch.set_float32_matmul_precision("highest")
    with torch.no_grad():
        here = vit(image)
        with gpu_kernels():  # on the CPU too, so that the comparison is of two ways
            there = vit.to(device)(image.to(device))
    assert there.device.type == device and apart(there, here) < OUTPUTS


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_in_float32(name: str, device: str, few_scenes: ScenesIndex, tmp_path: Path, comparable: None) -> None:
    here, there = (
        taken(make_fabric("32-true", device=where), *built(name, few_scenes, tmp_path)) for where in ("cpu", device)
    )
    assert there.losses == pytest.approx(here.losses, rel=LOSSES)
    assert apart(there.gradient, here.gradient) < GRADIENTS


@pytest.mark.parametrize("name", ["mae", "classification", "segmentation"])
def test_a_step_in_bfloat16(name: str, device: str, few_scenes: ScenesIndex, tmp_path: Path, comparable: None) -> None:
    """Not of detection, whose proposals are others where scores are rounded."""
    precisions: tuple[tuple[Literal["32-true", "bf16-mixed"], str], ...] = (("32-true", "cpu"), ("bf16-mixed", device))
    here, there = (
        taken(make_fabric(precision, device=where), *built(name, few_scenes, tmp_path))
        for precision, where in precisions
    )
    assert there.losses != here.losses
    assert there.losses == pytest.approx(here.losses, rel=BFLOAT16)


@pytest.mark.parametrize("name", ["mae", "classification"])
def test_an_overflow_of_float16_is_a_step_that_is_skipped(
    name: str, device: str, few_scenes: ScenesIndex, tmp_path: Path, comparable: None
) -> None:
    here = taken(make_fabric("32-true", device="cpu"), *built(name, few_scenes, tmp_path))
    scaler = GradScaler(device, init_scale=OVERFLOWS, backoff_factor=FITS / OVERFLOWS)
    fabric = Fabric(accelerator=device, devices=1, plugins=[MixedPrecision("16-mixed", device=device, scaler=scaler)])
    task, batch = built(name, few_scenes, tmp_path)
    module: Any = fabric.setup_module(task.model.train())
    optimizer = fabric.setup_optimizers(torch.optim.AdamW(task.model.parameters(), lr=1e-3))
    trained = next(p for p in task.model.parameters() if p.requires_grad)
    weights = [trained.detach().clone()]
    for scale in (FITS, FITS):  # after the step
        seed_all(2)
        losses = module(fabric.to_device(batch))
        assert {key: float(value.detach()) for key, value in losses.items()} == pytest.approx(here.losses, rel=FLOAT16)
        fabric.backward(torch.stack([value.float() for value in losses.values() if value.requires_grad]).sum())
        optimizer.step()
        optimizer.zero_grad()
        weights.append(trained.detach().clone())
        assert scaler.get_scale() == scale
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2]) and bool(torch.isfinite(weights[2]).all())
