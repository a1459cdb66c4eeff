"""Losses and gradient norm of a step, read behind the device: the host waits for it only where the numbers are needed.

A step sends its numbers to the host and goes on. They are read when the next step has sent its own, or at once where
they are logged, saved or evaluated. So numbers that are none are noticed one step late at most, and in no checkpoint.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor

from engine.training.processes import from_all
from engine.training.sharding import whole


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """What one micro-batch of a step gave."""

    ids: tuple[str, ...]
    """Of its images."""
    losses: Mapping[str, Tensor]
    """With their sum, `loss`."""


@dataclass(frozen=True, kw_only=True)
class StepNumbers:
    """The numbers of a step, on the host."""

    losses: dict[str, float]
    """Means over the micro-batches."""
    norm: float
    """Of the gradient, before it is clipped."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Numbers that are NaN or infinite."""

    step: int
    """Steps done before it."""
    what: str
    """The loss or the gradient."""
    losses: dict[str, float]
    """Of the first micro-batch on this process where they are none, else of the last one."""
    images: tuple[str, ...]
    """Of the micro-batches at fault, on all processes."""
    lr: float


@dataclass(frozen=True, kw_only=True)
class _Sent:
    step: int
    lr: float
    names: tuple[tuple[str, ...], ...]
    ids: tuple[tuple[str, ...], ...]
    host: Tensor
    """Losses of every micro-batch, the norm, and how many processes have a loss that is none."""
    arrived: torch.cuda.Event | None


class Numbers:
    """The numbers of the latest step, until they are read."""

    def __init__(self, fabric: Fabric, *, checks_norm: bool, refuse: Callable[[Fault], NoReturn]) -> None:
        """Raise by `refuse` what is none; without `checks_norm` the norm may be, as float16 has it now and then."""
        self._fabric, self._checks_norm, self._refuse = fabric, checks_norm, refuse
        self._sent: _Sent | None = None
        self.latest: StepNumbers | None = None
        """Of the latest step whose numbers were read; None before the first."""

    def send(self, step: int, lr: float, micros: Sequence[MicroBatch], norm: Tensor | None) -> None:
        """Let the numbers of a step go to the host, and read those of the step before."""
        losses = [value.detach() for micro in micros for value in micro.losses.values()]
        wide = torch.float64 if any(value.dtype == torch.float64 for value in losses) else torch.float32
        loss_M = torch.stack([micro.losses["loss"].detach() for micro in micros])
        bad = (~torch.isfinite(loss_M)).any().to(wide)
        if self._fabric.world_size > 1:
            dist.all_reduce(bad)
        of_gradient = torch.zeros((), device=bad.device) if norm is None else whole(norm)
        values = torch.stack([*(value.to(wide) for value in losses), of_gradient.to(wide), bad])
        host, arrived = values, None
        if values.is_cuda:
            host = values.to("cpu", non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        self.read()
        self._sent = _Sent(
            step=step,
            lr=lr,
            names=tuple(tuple(micro.losses) for micro in micros),
            ids=tuple(micro.ids for micro in micros),
            host=host,
            arrived=arrived,
        )

    def read(self) -> None:
        """Read the numbers of the latest step that has sent them. Raises where one is none."""
        sent, self._sent = self._sent, None
        if sent is None:
            return
        if sent.arrived is not None:
            sent.arrived.synchronize()
        *losses, norm, bad = sent.host.tolist()
        rest = iter(losses)
        by_micro = [{name: next(rest) for name in names} for names in sent.names]
        if bad or (self._checks_norm and not math.isfinite(norm)):
            self._refuse(self._fault(sent, by_micro, of_loss=bool(bad)))
        means: dict[str, float] = {}
        for found in by_micro:
            for name, value in found.items():
                means[name] = means.get(name, 0.0) + value / len(by_micro)
        self.latest = StepNumbers(losses=means, norm=norm)

    def _fault(self, sent: _Sent, by_micro: list[dict[str, float]], *, of_loss: bool) -> Fault:
        guilty = [number for number, found in enumerate(by_micro) if not math.isfinite(found["loss"])]
        mine = guilty if of_loss else [len(by_micro) - 1]
        return Fault(
            step=sent.step,
            what="the loss" if of_loss else "the gradient",
            losses=by_micro[mine[0] if mine else -1],
            images=tuple(from_all(self._fabric, [name for number in mine for name in sent.ids[number]])),
            lr=sent.lr,
        )
