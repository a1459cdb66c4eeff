"""From a file of ViT-L weights (1.2 GB) to a model that holds them, against torch.load, the page cache warm.

python perf/weights_loading.py [--rounds N] [--quick]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from harness import machine

from backbones.config import FAMILY
from backbones.vit import ViT
from backbones.weights import digest
from backbones.weights.checkpoint import write_checkpoint
from backbones.weights.compared import mark_compared
from backbones.weights.declaration import InitialWeights
from backbones.weights.loader import load_checkpoint
from backbones.weights.read import read_checkpoint
from files.digest import file_sha256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one round of a small model: does it run?")
    arguments = parser.parse_args()
    vit = ViT(FAMILY["vit_tiny_patch16" if arguments.quick else "vit_large_patch16"])
    with tempfile.TemporaryDirectory() as folder:
        pth, own = Path(folder) / "vit.pth", Path(folder) / "backbone.safetensors"
        torch.save({"model": vit.state_dict()}, pth)
        write_checkpoint(own, vit, source="mae")

        by_name = in_the_hubs_cache(own, Path(folder))

        def by_torch() -> None:
            vit.load_state_dict(torch.load(pth, map_location="cpu", weights_only=True)["model"])

        def by_us(path: Path, source: str, *, sha256: bool) -> None:
            digest._begin.cache_clear()
            checkpoint = read_checkpoint(InitialWeights(path=path, source=source))
            load_checkpoint(vit, checkpoint)
            if sha256:
                assert checkpoint.sha256

        programs: dict[str, Callable[[], None]] = {
            "torch.load and load_state_dict, .pth": by_torch,
            "ours, .pth, checked for NaN": lambda: by_us(pth, "mae", sha256=False),
            "ours, safetensors, checked for NaN": lambda: by_us(own, "own", sha256=False),
            "ours, .pth, with its SHA-256": lambda: by_us(pth, "mae", sha256=True),
            "ours, safetensors, with its SHA-256": lambda: by_us(own, "own", sha256=True),
            "ours, safetensors by name, with its SHA-256": lambda: by_us(by_name, "own", sha256=True),
        }
        times: dict[str, list[float]] = {name: [] for name in programs}
        for round_number in range(1 + (1 if arguments.quick else arguments.rounds)):
            for name, program in programs.items():
                start = time.perf_counter()
                program()
                if round_number:  # the first warms the page cache
                    times[name].append(time.perf_counter() - start)
                time.sleep(0 if arguments.quick else 1.5)  # a digest still at work would take a core from the next
        size = pth.stat().st_size
    medians = {name: statistics.median(series) for name, series in times.items()}
    peer = next(iter(medians.values()))
    print(f"\n### Weights of {size / 1e9:.2f} GB into a model\n\n{machine()}; median of {arguments.rounds} rounds.\n")
    print("| program | ms | against torch.load |\n|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {1e3 * median:,.0f} | {peer / median:.1f}x |")


def in_the_hubs_cache(file: Path, folder: Path) -> Path:
    """Return a file as the hub's cache has it after it was compared: a link to one that is called by its SHA-256."""
    os.environ["HF_HOME"] = str(folder)  # before huggingface_hub is imported
    blob = folder / "hub" / "models--some--vit" / "blobs" / file_sha256(file)
    blob.parent.mkdir(parents=True)
    os.link(file, blob)
    path = blob.parents[1] / "snapshots" / f"{1:040x}" / "backbone.safetensors"
    path.parent.mkdir(parents=True)
    path.symlink_to(blob)
    mark_compared(path)
    return path


if __name__ == "__main__":
    main()
