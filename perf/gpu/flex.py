"""Attention of ViTDet's whole images by FlexAttention beside the path that is taken now."""

import time
from functools import partial

import torch
from torch import Tensor

from backbones.attention import Attention
from perf.gpu.machine import median_seconds
from perf.gpu.row import Ask

MIB = 2**20
HEADS, WIDTH, GRID = 12, 64, (64, 64)  # of ViT-B at 1,024 pixels


def flex(ask: Ask) -> None:
    """Say time and memory of either, forward and backward in bfloat16, the seconds to compile, and how far apart."""
    for images in (1, 4):
        torch.manual_seed(0)
        block = Attention(HEADS * WIDTH, num_heads=HEADS, relative="decomposed", made_for=GRID).to(ask.device)
        for table in (block.rel_pos_h, block.rel_pos_w):
            torch.nn.init.normal_(table, std=0.02)
        x_BTD = torch.randn(images, GRID[0] * GRID[1], HEADS * WIDTH, device=ask.device, requires_grad=True)
        both = partial(_both, block, x_BTD)
        taken: dict[str, tuple[Tensor, ...]] = {}
        seconds: dict[str, float] = {}

        for name, chosen in (("now", False), ("FlexAttention", True)):
            block.flex = chosen
            torch.cuda.reset_peak_memory_stats()
            before, start = torch.cuda.memory_allocated(), time.perf_counter()
            taken[name] = both()
            torch.cuda.synchronize()
            first = time.perf_counter() - start
            peak = (torch.cuda.max_memory_allocated() - before) / MIB
            seconds[name] = median_seconds(both, ask.device, seconds=2.0)
            told = f"{1e3 * seconds[name]:.2f} ms forward and backward, {peak:,.0f} MiB, the first {first:.1f} s"
            ask.say(f"{name}, {images} images", told, ms=1e3 * seconds[name], peak=peak, first=first)
        apart = [
            float((one.float() - other.float()).norm() / one.float().norm())
            for one, other in zip(taken["now"], taken["FlexAttention"], strict=True)
        ]
        told = f"outputs {apart[0]:.1e}, gradients {max(apart[1:]):.1e} apart; bfloat16 has 8e-3"
        ratio = seconds["now"] / seconds["FlexAttention"]
        ask.say(f"FlexAttention against now, {images} images", f"{ratio:.2f}x the speed; {told}", ratio=ratio)


def _both(block: Attention, x_BTD: Tensor) -> tuple[Tensor, ...]:
    """Return the output, and the gradients of input and parameters."""
    with torch.autocast(x_BTD.device.type, torch.bfloat16):
        out_BTD = block(x_BTD, GRID)
    return out_BTD, *torch.autograd.grad(out_BTD.float().square().sum(), [x_BTD, *block.parameters()])
