"""Memory and kernels on a device: the plan against what is held, and which attention is taken."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from backbones.attention import gpu_kernels
from classification import plan as of_classification
from classification.recipes import RECIPES as CLASSIFICATION
from engine.memory.live import LiveMemory
from engine.memory.plan import Plannable, footprint
from perf.gpu.checks import ATTENTION, FAST, call_of
from perf.plan_memory import Case, take_steps
from pretraining import plan as of_pretraining
from pretraining.recipes import RECIPES as PRETRAINING
from tests.smaller import small_vit


def _mae() -> Plannable:
    recipe = PRETRAINING["mae_base"]()
    return of_pretraining.builder(replace(recipe, backbone=replace(recipe.backbone, depth=2), decoder_depth=2))()


def _classifier() -> Plannable:
    recipe = CLASSIFICATION["mae_base"]()
    return of_classification.plannable(replace(recipe, backbone=small_vit(recipe.backbone)), num_classes=10)


CASES = {
    "mae": Case(images=4, precision="32-true", build=_mae),
    "classification": Case(images=64, precision="32-true", build=_classifier),
    "classification, bfloat16": Case(images=64, precision="bf16-mixed", build=_classifier),
}


def held(case: Case, device: str) -> int:
    """Return the most bytes at once: what CUDA allocated, or what tensors held on the CPU."""
    if device == "cpu":
        memory = LiveMemory()
        with memory, gpu_kernels():
            take_steps(case, case.images, torch.device("cpu"))
        return memory.peak
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    take_steps(case, case.images, torch.device("cuda"))
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("name", CASES)
def test_memory_is_as_planned(name: str, device: str) -> None:
    case = CASES[name]
    with gpu_kernels():
        planned = footprint(case.build, images=case.images, precision=case.precision).peak
    # what the planner leaves out: a GPU's workspaces (cuBLAS keeps 32 MiB at most) and rounding of allocations
    least, most = (0.95, 1.05) if device == "cpu" else (0.9, 1.1)
    beside = 0 if device == "cpu" else 64 * 2**20
    assert least * planned < held(case, device) < most * planned + beside


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_takes_a_fast_kernel(name: str, device: str) -> None:
    """On a CPU of fewer patches, where flash attention is the only fast kernel and takes no bias that learns."""
    images, grid, window, relative = ATTENTION[name]
    if device == "cpu":
        images, grid = 1, (min(grid[0], 33), min(grid[1], 33))
    call = call_of(images, grid, window, relative, device=device)
    assert (call.mask is not None) == (relative and not window)
    with sdpa_kernel(SDPBackend.MATH):
        expected = call.again()
    if device == "cpu" and call.mask is not None:
        assert call.taken() == SDPBackend.MATH
        return
    assert call.taken() in FAST
    with sdpa_kernel(FAST if device == "cuda" else SDPBackend.FLASH_ATTENTION):
        # bfloat16
        torch.testing.assert_close(call.again().float(), expected.float(), rtol=2e-2, atol=2e-2)
