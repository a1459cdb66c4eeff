"""Every random number of a run is a function of its seed and of what it is for.

Nothing carries generator state from step to step: step s draws from a generator seeded by (seed, "step", s, rank), the
sample at position p of the data order from (seed, "sample", p). So a resumed run needs no saved generator, and the
number of loader processes changes nothing.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch


@dataclass
class _Block:
    seed: int
    generators: int = 0
    """That were made in it."""


_blocks: list[_Block] = []  # under `seeded`, the innermost last


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
    _blocks.append(_Block(seed))
    try:
        yield
    finally:
        _blocks.pop()
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def own_generator(purpose: str) -> np.random.Generator:
    """Return a generator for one purpose in a block under `seeded`, another at every call.

    The generators that the block's other choices draw from are not drawn from. Outside of such a block its seed is one
    of NumPy's global generator.
    """
    if not _blocks:
        return np.random.default_rng(np.random.randint(2**31))
    block = _blocks[-1]
    block.generators += 1
    return np.random.default_rng(derive(block.seed, purpose, block.generators))


def _seed_cpu(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # not torch.manual_seed: without CUDA initialised it queues a call with a stack trace, every time
    torch.default_generator.manual_seed(seed)
