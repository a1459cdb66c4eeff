"""Device, precision and processes of a run, through Lightning Fabric."""

import os
import platform
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy

from engine.config import Precision, RunConfig, check_device
from engine.share import THREADS
from engine.task import Task, steps_alike
from engine.training.sharding import shard


def make_fabric(
    precision: Precision,
    *,
    device: str = "auto",
    strategy: Literal["ddp", "fsdp"] = "ddp",
    static_graph: bool = False,
) -> Fabric:
    """Return a launched Fabric: one device, or the processes that torchrun started, which share as `strategy` says.

    `static_graph` tells DDP that every step is like the first. On a CPU without AMX, float32 matmuls go to oneDNN,
    which is twice as fast at the same accuracy. Raises ValueError for a device that is not there, or is not for several
    processes, and float16 without a GPU.
    """
    if (threads := os.environ.get(THREADS, "")).isdigit() and int(threads) > 0:
        torch.set_num_threads(int(threads))  # of a run beside others: a fork of a process that has imported torch
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "WORLD_SIZE" not in os.environ:
        raise ValueError(
            "srun started several tasks, each of which would train alone; let srun start torchrun, one per node."
        )
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
    wanted = device_named(device, processes=world)
    on_gpu = wanted.type == "cuda"
    if precision == "16-mixed" and not on_gpu:
        raise ValueError("precision 16-mixed needs a GPU; on a CPU use bf16-mixed or 32-true.")
    computed = auto_precision(on_gpu=on_gpu) if precision == "auto" else precision
    fabric = Fabric(
        accelerator=wanted.type if wanted.type in ("cpu", "cuda") else "auto",
        devices=local if wanted.index is None else [wanted.index],
        num_nodes=max(1, world // local),
        strategy=_strategy(strategy, world, computed, static_graph=static_graph) if world > 1 else "auto",
        precision=computed,
    )
    fabric.launch()
    _choose_products(fabric.device)
    return fabric


def _choose_products(device: torch.device) -> None:
    """Have float32 matmuls by oneDNN on a CPU, and in float32 on a GPU, where oneDNN's setting means TF32.

    So a run on a GPU does not depend on whether its process has had one on the CPU.
    """
    if device.type != "cpu":
        torch.set_float32_matmul_precision("highest")
    elif not torch.cpu._is_amx_tile_supported():  # with AMX it would mean bfloat16 products
        torch.set_float32_matmul_precision("medium")


def has_static_graph(task: Task, run: RunConfig) -> bool:
    """Return whether DDP may be told that every step of a run is like the first.

    Not with accumulation: PyTorch 2.14 ends in an internal error (`expect_autograd_hooks_`) where the first backward
    pass is one that exchanges nothing. Not with compiled blocks, which were not tried.
    """
    return steps_alike(task) and run.accumulate == 1 and not run.compile


@contextmanager
def timed_convolutions(wanted: bool) -> Iterator[None]:
    """Have cuDNN time its convolutions at every new shape, and keep to the fastest, or have it not.

    That pays where shapes come again, as those of training steps do, and not those of whole images.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = wanted
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def determined(wanted: bool) -> Iterator[None]:
    """Have PyTorch take kernels that repeat their results, where it has them and where that is wanted.

    Where it has none it warns by name. To be entered before the first operation on a GPU: cuBLAS reads its variable
    then. Memory that nothing was written to is not filled, as PyTorch would do besides.
    """
    if not wanted:
        yield
        return
    cudnn, memory = torch.backends.cudnn, cast(Any, torch.utils.deterministic)
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        memory.fill_uninitialized_memory,
        cudnn.deterministic,
        cudnn.benchmark,
    )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = before[2]
        cudnn.deterministic, cudnn.benchmark = before[3:]


@contextmanager
def cuda_untouched() -> Iterator[None]:
    """Have PyTorch count no GPU meanwhile where it would ask CUDA for the number.

    A process that has asked cannot fork others that use CUDA, and mmengine and mmcv ask when they are imported. What
    NVML answers asks nothing of CUDA, and is answered.
    """
    counted = getattr(torch._C, "_cuda_getDeviceCount", None)  # a build for CPUs has none
    if counted is None:
        yield
        return
    torch._C._cuda_getDeviceCount = lambda: 0
    try:
        yield
    finally:
        torch._C._cuda_getDeviceCount = counted


def device_named(name: str, *, processes: int) -> torch.device:
    """Return the device that `--device` names; without an index each of the processes takes a GPU.

    Raises ValueError for one that is not there, or is one for several processes.
    """
    check_device(name)
    gpus = torch.cuda.device_count() if name != "cpu" else 0
    if name == "auto":
        other = "cpu" if not torch.backends.mps.is_available() else "mps"
        return torch.device("cuda" if gpus and torch.cuda.is_available() else other)
    wanted = torch.device(name)
    if wanted.type == "cuda" and (wanted.index or 0) >= gpus:
        there = ", ".join(["cpu", *(f"cuda:{number}" for number in range(gpus))])
        why = "" if torch.version.cuda else "; this PyTorch is a build for CPUs"
        raise ValueError(f"device {name}: there is no such device here, but {there}{why} (`make doctor` tells more).")
    if wanted.index is not None and processes > 1:
        raise ValueError(f"device {name}: torchrun started {processes} processes, each for a GPU of its own; use cuda.")
    return wanted


def _strategy(
    name: Literal["ddp", "fsdp"], world: int, precision: str, *, static_graph: bool = False
) -> DDPStrategy | ModelParallelStrategy:
    if name == "ddp":
        # gradients live in what is exchanged; buffers are those of the first process, which an evaluation spreads
        return DDPStrategy(gradient_as_bucket_view=True, broadcast_buffers=False, static_graph=static_graph)
    gathers = torch.bfloat16 if precision == "bf16-mixed" else None
    return ModelParallelStrategy(
        lambda model, mesh: shard(model, mesh["data_parallel"], gathers=gathers),
        data_parallel_size=world,
        tensor_parallel_size=1,
    )


def auto_precision(*, on_gpu: bool) -> Literal["bf16-mixed", "32-true"]:
    """Return bf16-mixed where the GPU or the CPU has native bfloat16, else 32-true."""
    if on_gpu:
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if native else "32-true"


def device_name(device: torch.device) -> str:
    """Return a name for records: the GPU's, or the processor's with the number of threads."""
    name = hardware_name(device)
    return f"{name}, {torch.get_num_threads()} threads" if device.type == "cpu" else name


def hardware_name(device: torch.device) -> str:
    """Return the GPU's or the processor's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _processor() if device.type == "cpu" else str(device)


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
