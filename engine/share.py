"""What one of several runs side by side on a machine may use of it."""

import os
from dataclasses import dataclass
from pathlib import Path

THREADS, GPUS = "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"
NVIDIA = Path("/proc/driver/nvidia/gpus")  # a folder per GPU, where its driver is loaded


@dataclass(frozen=True)
class Share:
    """What a run may use of the machine; None is all that there is."""

    threads: int | None = None
    gpu: str | None = None
    """An entry of CUDA_VISIBLE_DEVICES."""

    def take(self) -> None:
        """Keep the calling process to its share (engine.device reads it); before its first operation on a GPU."""
        if self.threads is not None:
            os.environ[THREADS] = str(self.threads)
        if self.gpu is not None:
            os.environ[GPUS] = self.gpu


def shares(at_once: int) -> list[Share]:
    """Return what each of `at_once` runs side by side may use: equal parts of the threads, and the GPUs in turn."""
    if at_once == 1:
        return [Share()]
    threads = max(1, all_threads() // at_once)
    count = len([*NVIDIA.iterdir()]) if NVIDIA.is_dir() else 0
    gpus = [gpu for gpu in os.environ.get(GPUS, ",".join(map(str, range(count)))).split(",") if gpu]
    return [Share(threads, gpus[place % len(gpus)] if gpus else None) for place in range(at_once)]


def all_threads() -> int:
    """Return how many threads a process may use: what OMP_NUM_THREADS says, else the cores that it is let run on."""
    given = os.environ.get(THREADS, "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
