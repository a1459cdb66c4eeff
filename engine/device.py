"""Device, precision and processes of a run, through Lightning Fabric."""

import os
import platform
import resource
import sys
from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import ModelParallelStrategy

from engine.config import Precision
from engine.share import THREADS
from engine.training.sharding import shard


def make_fabric(precision: Precision, strategy: Literal["ddp", "fsdp"] = "ddp") -> Fabric:
    """Return a launched Fabric: one device, or the processes that torchrun started, which share as `strategy` says.

    On a CPU without AMX, float32 matmuls go to oneDNN, which is twice as fast at the same accuracy.
    """
    if (threads := os.environ.get(THREADS, "")).isdigit() and int(threads) > 0:
        torch.set_num_threads(int(threads))  # of a run beside others: a fork of a process that has imported torch
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "WORLD_SIZE" not in os.environ:
        raise ValueError(
            "srun started several tasks, each of which would train alone; let srun start torchrun, one per node."
        )
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if precision == "16-mixed" and not torch.cuda.is_available():
        raise ValueError("precision 16-mixed needs a GPU; on a CPU use bf16-mixed or 32-true.")
    local = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
    fabric = Fabric(
        accelerator="auto",
        devices=local,
        num_nodes=max(1, world // local),
        strategy=_strategy(strategy, world) if world > 1 else "auto",
        precision=auto_precision() if precision == "auto" else precision,
    )
    fabric.launch()
    if fabric.device.type == "cpu" and not torch.cpu._is_amx_tile_supported():
        # with AMX this would mean bfloat16 products
        torch.set_float32_matmul_precision("medium")
    return fabric


def _strategy(name: Literal["ddp", "fsdp"], world: int) -> str | ModelParallelStrategy:
    if name == "ddp":
        return "ddp"
    return ModelParallelStrategy(
        lambda model, mesh: shard(model, mesh["data_parallel"]), data_parallel_size=world, tensor_parallel_size=1
    )


def auto_precision() -> Literal["bf16-mixed", "32-true"]:
    """Return bf16-mixed where the device has native bfloat16, else 32-true."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if native else "32-true"


def device_name(device: torch.device) -> str:
    """Return a name for records: the GPU's, or the processor's with the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {torch.get_num_threads()} threads" if device.type == "cpu" else str(device)


def peak_memory(device: torch.device) -> int:
    """Return bytes: CUDA's peak allocation, or the peak resident set of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage: bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        return names[0] if names else platform.processor() or platform.machine()
    except OSError:
        return platform.processor() or platform.machine()
