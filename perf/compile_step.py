"""MAE's step with compiled blocks (`--compile`) and without: speed, share of the matmul limit, seconds that it costs.

    python perf/compile_step.py [--size base|small] [--rounds N] [--switches bf16|fp32|onednn] [--quick]

Both programs start from equal weights and take a step of each in turn. The seconds of compilation are what the first
three compiled steps take beyond three later ones; the compiler's cache is in a new folder, so that they are those of a
machine that has not compiled before. The step pays from which on is that many seconds over what a step saves. The limit
is the time that the products of a step would take at the rate of a matmul of ViT-B's MLP, measured here and now.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from harness import CPU, MATMULS, TOLERANCE, Step, Switches, _matmul_rate, machine, switched
from mae_alone import SMALL, autoencoder, step_of
from torch.utils.flop_counter import FlopCounterMode

from backbones.config import FAMILY, ViTConfig
from engine.memory.plan import COUNTED
from engine.training.block_modes import compile_blocks

SIZES: dict[str, tuple[str, ViTConfig, int]] = {
    "base": ("MAE step, ViT-B/16, 224 px, batch 8", FAMILY["vit_base_patch16"], 8),
    "small": ("MAE step, width 192, depth 12, patch 8, 96 px, batch 64", SMALL, 64),
}


def main() -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES))
    parser.add_argument("--switches", choices=sorted(MATMULS.keys() - {"tf32"}), default="bf16")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one round of two images: does it run?")
    given = parser.parse_args()
    for name in [given.size] if given.size else sorted(SIZES):
        title, a, images = SIZES[name]
        with tempfile.TemporaryDirectory(prefix="compiled") as folder:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
            measure(title, a, 2 if given.quick else images, given.switches, 1 if given.quick else given.rounds)
            if not any(Path(folder).iterdir()):
                raise RuntimeError("the compiler wrote to another cache, so its seconds say nothing.")


def measure(title: str, a: ViTConfig, images: int, switches: Switches, rounds: int) -> None:
    """Print the table of one size. Raises ValueError where the two do not do the same work."""
    plain, compiled = step_of(autoencoder(a), images), _compiled(a, images)
    count = FlopCounterMode(display=False, custom_mapping=COUNTED)
    with switched(switches):
        with count:
            first = plain(switches)
        began = [_seconds(compiled, switches) for _ in range(3)]  # a later one may compile again
        times: dict[str, list[float]] = {"plain": [], "compiled": []}
        for _ in range(rounds):
            for name, step in (("plain", plain), ("compiled", compiled)):
                times[name].append(_seconds(step, switches)[0])
    value = began[0][1]
    if not abs(value - first) <= TOLERANCE[switches] * abs(first):
        raise ValueError(f"compiled the loss is {value:.6g}, {first:.6g} without: not the same work.")
    medians = {name: statistics.median(series) for name, series in times.items()}
    extra = sum(seconds for seconds, _ in began) - len(began) * medians["compiled"]
    saved = medians["plain"] - medians["compiled"]
    limit = count.get_total_flops() / (1e9 * _matmul_rate(switches))
    print(f"\n### {title}, {switches}\n\n{machine()}; median of {rounds} rounds in turn.\n")
    print("| program | ms | images/s | against plain | of the matmul limit | loss |\n|---|---|---|---|---|---|")
    for name, loss in (("plain", first), ("compiled", value)):
        median = medians[name]
        ratio, share = medians["plain"] / median, limit / median
        print(f"| {name} | {1e3 * median:,.0f} | {images / median:.2f} | {ratio:.2f}x | {share:.0%} | {loss:.6g} |")
    pays = f"after {extra / saved:,.0f} steps" if saved > 0 else "never: it saves nothing"
    print(f"\nCompilation took {extra:.1f} s; it pays {pays}.")


def _compiled(a: ViTConfig, images: int) -> Step:
    model = autoencoder(a)
    compile_blocks(model, CPU)
    return step_of(model, images)


def _seconds(step: Step, switches: Switches) -> tuple[float, float]:
    start = time.perf_counter()
    value = step(switches)
    return time.perf_counter() - start, value


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
