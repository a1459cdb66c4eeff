"""Every random number of a run is a function of its seed and of what it is for.

Nothing carries generator state from step to step: step s draws from a generator seeded by (seed, "step", s, rank), the
sample at position p of the data order from (seed, "sample", p). So a resumed run needs no saved generator, and the
number of loader processes changes nothing.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed for one purpose, independent of those for all others."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_all(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators, which the host libraries draw from."""
    _seed_cpu(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block under generators seeded by `seed` and put the generators, the CPU's alone, back as they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    _seed_cpu(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _seed_cpu(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # not torch.manual_seed: without CUDA initialised it queues a call with a stack trace, every time
    torch.default_generator.manual_seed(seed)
