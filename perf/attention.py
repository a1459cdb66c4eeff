"""Kernels of attention on this CPU, forward and backward: what `backbones/attention.py` chooses by.

python perf/attention.py [--rounds N] [--quick]
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from harness import machine
from torch import Tensor

from backbones.attention import fused_attention, matmul_attention
from backbones.attention_chunked import attention_in_pieces
from backbones.config import Grid
from backbones.relative_position import place_channels

HEADS, WIDTH = 12, 64  # ViT-B
Kernel = Callable[..., Tensor]
TOKENS = ((8, 50), (8, 197), (2, 1024), (1, 4096))  # batch, tokens
GRIDS = ((25, (14, 14)), (1, (32, 32)), (1, (64, 64)))  # windows or images, patches


def in_pieces(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attention_in_pieces(q, k, v)


def by_bias(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return matmul_attention(q, k, v, (rows[..., :, None] + columns[..., None, :]).flatten(-2))


def with_channels(q: Tensor, k: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    places = place_channels((rows.shape[-1], columns.shape[-1]), like=k).expand(*k.shape[:2], -1, -1)
    return torch.cat([q * WIDTH**-0.5, rows, columns], dim=-1), torch.cat([k, places], dim=-1)


def by_channels(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return matmul_attention(*with_channels(q, k, rows, columns), v, scale=1.0)


def channels_in_pieces(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return attention_in_pieces(*with_channels(q, k, rows, columns), v, scale=1.0)


def bias_in_pieces(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return attention_in_pieces(q, k, v, (rows, columns))


PLAIN: dict[str, Kernel] = {"matmul": matmul_attention, "fused": fused_attention, "pieces": in_pieces}
PLACED: dict[str, Kernel] = {
    "bias": by_bias,
    "channels": by_channels,
    "bias in pieces": bias_in_pieces,
    "channels in pieces": channels_in_pieces,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one round of the shortest: does it run?")
    arguments = parser.parse_args()
    torch.set_float32_matmul_precision("medium")
    rounds, cases = (1, 1) if arguments.quick else (arguments.rounds, None)
    print(f"\n### Attention, forward and backward, ms\n\n{machine()}; median of {rounds} interleaved rounds.\n")
    print(f"| batch x tokens | type | {' | '.join(PLAIN)} |\n|---|---|---|---|---|")
    for batch, tokens in TOKENS[:cases]:
        _row(f"{batch} x {tokens:,}", PLAIN, batch, (tokens, 1), rounds)
    print("\nWith decomposed relative positions, the vectors' own product left out:\n")
    print(f"| images x patches | type | {' | '.join(PLACED)} |\n|---|---|---|---|---|---|")
    for batch, grid in GRIDS[:cases]:
        _row(f"{batch} x {grid[0]} x {grid[1]}", PLACED, batch, grid, rounds)


def _row(name: str, kernels: dict[str, Kernel], batch: int, grid: Grid, rounds: int) -> None:
    widths = (WIDTH, WIDTH, WIDTH, *(grid if kernels is PLACED else ()))
    for dtype in (torch.float32, torch.bfloat16):
        inputs = [torch.randn(batch, HEADS, grid[0] * grid[1], width).to(dtype).requires_grad_() for width in widths]
        times: dict[str, list[float]] = {kernel: [] for kernel in kernels}
        for round_number in range(1 + rounds):
            for kernel, function in kernels.items():
                seconds = _timed(function, inputs)
                if round_number:  # the first warms up
                    times[kernel].append(seconds)
        medians = " | ".join(f"{1e3 * statistics.median(series):,.1f}" for series in times.values())
        print(f"| {name} | {'bf16' if dtype == torch.bfloat16 else 'fp32'} | {medians} |", flush=True)


def _timed(kernel: Kernel, inputs: Sequence[Tensor]) -> float:
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=inputs[0].dtype == torch.bfloat16):
        out = kernel(*inputs)
    torch.autograd.grad(out, inputs, torch.ones_like(out))
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
