"""What is checked beside speed: memory against the plan, kernels of attention, repeated steps, groups of one."""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import mae_alone
import torch
from harness import Step, Switches, switched
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from backbones.attention import Attention, gpu_kernels
from backbones.config import Grid
from engine.device import _strategy, determined
from perf.gpu.row import Ask, NotRun

MIB = 2**20
SMALL_SIDE = 33  # patches: more rows and columns than a head has channels, as in the whole image of 64 x 64
FAST = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]
PLANNED = {  # of perf/plan_memory.py, and images that a GPU takes
    "MAE ViT-B/16 224 px, bf16, EMA": 128,
    "classification ViT-B/16 224 px, bf16": 128,
    "classification ViT-B/16 224 px": 64,
    "UPerNet ViT-B 512 px": 4,
    "ViTDet-B 512 px, bf16": 4,
    "ViTDet-B 512 px, activation checkpointing": 4,
}


def planner(ask: Ask) -> None:
    """Say the planner's memory against what PyTorch allocated for two real steps."""
    from engine.memory.plan import footprint
    from perf import plan_memory

    torch.set_float32_matmul_precision("highest")
    for name, images in PLANNED.items():
        case = plan_memory.CASES[name]
        with gpu_kernels():
            planned = footprint(case.build, images=images, precision=case.precision).peak
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        plan_memory.take_steps(case, images, torch.device(ask.device))
        measured = torch.cuda.max_memory_allocated() - before
        told = f"planned {planned / MIB:,.0f} MiB, measured {measured / MIB:,.0f}: {planned / measured:.2f}"
        ask.say(f"{name}, {images} images", told, planned=planned, measured=measured)


@dataclass(frozen=True, kw_only=True)
class Call:
    """What a block gives to PyTorch's attention."""

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    scale: float | None

    def again(self) -> Tensor:
        """Return the attention."""
        return F.scaled_dot_product_attention(self.q, self.k, self.v, attn_mask=self.mask, scale=self.scale)

    def taken(self) -> SDPBackend:
        """Return the kernel that PyTorch takes by itself."""
        chosen = torch._fused_sdp_choice(self.q, self.k, self.v, attn_mask=self.mask, scale=self.scale)
        return SDPBackend(chosen)


ATTENTION: dict[str, tuple[int, Grid, int, bool]] = {
    # images, patches, window, with decomposed positions
    "MAE's encoder": (64, (7, 7), 0, False),
    "plain ViT": (32, (14, 14), 0, False),
    "ViTDet's windows": (2, (64, 64), 14, True),
    "ViTDet's whole images": (2, (64, 64), 0, True),
}


def call_of(images: int, grid: Grid, window: int, relative: bool, *, device: str) -> Call:
    """Return what a block of ViT-B (on a CPU: of two heads) gives to the kernel, in bfloat16."""
    heads = 12 if device == "cuda" else 2
    made_for = (window, window) if window else grid
    kind = "decomposed" if relative else "none"
    block = Attention(64 * heads, num_heads=heads, relative=kind, made_for=made_for).to(device)  # type: ignore[arg-type]
    kept: list[Call] = []
    kernel = F.scaled_dot_product_attention

    def watched(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, scale: float | None = None) -> Tensor:
        q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
        mask = None if attn_mask is None else attn_mask.detach().requires_grad_()
        kept.append(Call(q=q, k=k, v=v, mask=mask, scale=scale))
        return kernel(q, k, v, attn_mask=attn_mask, scale=scale)

    x = torch.randn(images, grid[0] * grid[1], 64 * heads, device=device)
    with (
        patch("torch.nn.functional.scaled_dot_product_attention", watched),
        torch.autocast(device, torch.bfloat16),
        gpu_kernels(),
    ):
        block(x, grid, window_size=window)
    return kept[0]


def attention(ask: Ask) -> None:
    """Say which kernel each kind of attention takes, and the time of each that takes it, forward and backward.

    Raises RuntimeError where a GPU takes none of the fast ones, after all of them are said.
    """
    slow = []
    for name, (images, grid, window, relative) in ATTENTION.items():
        if ask.small:
            images, grid = 1, (min(grid[0], SMALL_SIDE), min(grid[1], SMALL_SIDE))
        call = call_of(images, grid, window, relative, device=ask.device)
        taken = call.taken()
        times = [f"{each.name} {_time(call, each, ask.device)}" for each in (*FAST, SDPBackend.MATH)]
        told = f"takes {taken.name}; q {tuple(call.q.shape)}, {'a' if call.mask is not None else 'no'} bias"
        ask.say(
            f"{name}, {images} x {grid[0]} x {grid[1]} patches", f"{told}; forward and backward: {', '.join(times)}"
        )
        if not _any_of(call, FAST):
            slow.append(name)
    if slow and not ask.small:
        raise RuntimeError(f"only the math kernel takes {', '.join(slow)}")


def _any_of(call: Call, backends: list[SDPBackend]) -> bool:
    try:
        with sdpa_kernel(backends):
            call.again()
    except RuntimeError:
        return False
    return True


def _time(call: Call, backend: SDPBackend, device: str) -> str:
    from perf.gpu.machine import median_seconds

    inputs = [x for x in (call.q, call.k, call.v, call.mask) if x is not None]

    def both() -> Tensor:
        with sdpa_kernel(backend):
            out = call.again()
        return torch.autograd.grad(out, inputs, torch.ones_like(out))[0]

    try:
        return f"{1e3 * median_seconds(both, device, seconds=0.01 if device == 'cpu' else 0.2):.2f} ms"
    except torch.OutOfMemoryError:
        return "out of memory"
    except RuntimeError:
        return "refuses"


def deterministic(ask: Ask) -> None:
    """Say whether two runs of MAE's steps are equal to the bit, with and without `--deterministic`, and its cost."""
    from perf.gpu.steps import mae_size

    a, images = mae_size(ask)
    steps = 2 if ask.small else 10
    times = {}
    for wanted in (True, False):  # cuBLAS reads its variable once: it stays as `--deterministic` has it
        with determined(wanted):
            runs = [steps_of_mae(a, images, steps, device=ask.device) for _ in range(2)]
        equal = all(torch.equal(one, other) for one, other in zip(runs[0][0], runs[1][0], strict=True))
        times[wanted] = runs[1][1]
        label = "deterministic" if wanted else "as usual"
        ask.say(f"{label}, {steps} steps twice", f"weights {'equal to the bit' if equal else 'differ'}", equal=equal)
    ask.say("cost of --deterministic", f"{times[True] / times[False]:.2f}x the time of a step")


def steps_of_mae(a: Any, images: int, steps: int, *, device: str) -> tuple[list[Tensor], float]:
    """Return the weights after so many steps in bfloat16 (on a CPU float32), and the median seconds."""
    model = mae_alone.autoencoder(a).to(device)
    step = mae_alone.step_of(model, images, lr=1e-3)
    seconds = _seconds_of(step, steps, device)
    return [value.detach().clone() for value in model.state_dict().values()], seconds


def _seconds_of(step: Step, steps: int, device: str) -> float:
    switches: Switches = "fp32" if device == "cpu" else "bf16"
    times = []
    with switched(switches, torch.device(device)):
        for _ in range(steps):
            start = time.perf_counter()
            step(switches)  # reads the loss, so it waits for the device
            times.append(time.perf_counter() - start)
    return statistics.median(times[1:] or times)


@contextmanager
def group_of_one(strategy: str, *, device: str, precision: str = "32-true") -> Iterator[Fabric]:
    """Give a launched Fabric of one process, which shares by `plain`, `ddp` or `fsdp` all the same.

    Its group talks by NCCL on a GPU, by gloo on a CPU. It is gone afterwards, with what the launch wrote to the
    environment.
    """
    before = dict(os.environ)
    chosen = "auto" if strategy == "plain" else _strategy(strategy, 1, precision)  # type: ignore[arg-type]
    fabric = Fabric(accelerator=device, devices=1, strategy=chosen, precision=precision)  # type: ignore[arg-type]
    try:
        fabric.launch()
        yield fabric
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        os.environ.clear()
        os.environ.update(before)


def processes(ask: Ask) -> None:
    """Say the loss after some steps of MAE, and the time of a step, plain, by DDP and by FSDP."""
    from perf.gpu.steps import mae_size

    if not torch.distributed.is_available():
        raise NotRun("this PyTorch is built without torch.distributed")
    a, images = mae_size(ask)
    steps = 3 if ask.small else 15
    losses = {}
    for strategy in ("plain", "ddp", "fsdp"):
        precision = "32-true" if ask.small else "bf16-mixed"
        with group_of_one(strategy, device=ask.device, precision=precision) as fabric:
            losses[strategy], seconds = loss_and_time(fabric, a, images, steps)
            backend = torch.distributed.get_backend() if torch.distributed.is_initialized() else "no group"
        apart = abs(losses[strategy] - losses["plain"]) / losses["plain"]
        told = (
            f"loss {losses[strategy]:.6g} after {steps} steps, {apart:.1e} from plain; {1e3 * seconds:,.1f} ms a step"
        )
        ask.say(f"{strategy}, {backend}", told, loss=losses[strategy], ms=1e3 * seconds)


def loss_and_time(fabric: Fabric, a: Any, images: int, steps: int) -> tuple[float, float]:
    """Return the loss of the last step and its seconds."""
    model = mae_alone.autoencoder(a)
    module: Callable[..., Any] = fabric.setup_module(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer: Any = fabric.setup_optimizers(torch.optim.AdamW(trained, lr=1e-3))
    image, noise = mae_alone.data(a, images, fabric.device)
    for _ in range(steps):
        start = time.perf_counter()
        loss = module((image, noise, []))["reconstruction"]
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        value = float(loss.detach())
    return value, time.perf_counter() - start
