"""What one of several runs side by side on a machine may use of it."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """What a run may use of the machine; None is all that there is."""

    threads: int | None = None
    gpu: str | None = None
    """An entry of CUDA_VISIBLE_DEVICES."""

    def take(self) -> None:
        """Keep the calling process to its share; before its first operation on a GPU."""
        if self.threads is not None:
            import torch

            os.environ["OMP_NUM_THREADS"] = str(self.threads)
            torch.set_num_threads(self.threads)
        if self.gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.gpu


def shares(at_once: int) -> list[Share]:
    """Return what each of `at_once` runs side by side may use: equal parts of the threads, and the GPUs in turn."""
    if at_once == 1:
        return [Share()]
    import torch  # a run alone needs none of it

    threads = max(1, torch.get_num_threads() // at_once)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count()))))
    gpus = [gpu for gpu in visible.split(",") if gpu]
    return [Share(threads, gpus[place % len(gpus)] if gpus else None) for place in range(at_once)]
