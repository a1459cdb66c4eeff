"""What the processes of a run tell each other; with one process nothing is sent."""

import os
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from lightning_fabric import Fabric

T = TypeVar("T")


def processes() -> int:
    """Return how many processes train together, as torchrun states it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def on_any(fabric: Fabric, flag: bool) -> bool:
    """True on every process where it is true on one, so that all leave together."""
    if fabric.world_size == 1:
        return flag
    total = torch.tensor(float(flag))
    dist.all_reduce(total, group=_host_group())
    return bool(total > 0)


def from_each(fabric: Fabric, value: T) -> list[T]:
    """Return the value of every process, by rank."""
    if fabric.world_size == 1:
        return [value]
    parts: list[T] = [value] * fabric.world_size
    dist.all_gather_object(parts, value, group=_host_group())
    return parts


_groups: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def _host_group() -> Any:
    """Return a group of all processes that talk without their devices, so that no word waits for what these compute."""
    world = dist.group.WORLD
    if "gloo" in dist.get_backend(world):
        return world
    if world not in _groups:
        _groups[world] = dist.new_group(backend="gloo")
    return _groups[world]


def from_all(fabric: Fabric, items: Iterable[T]) -> list[T]:
    """Return the items of every process in one list, by rank."""
    return [item for part in from_each(fabric, list(items)) for item in part]


def from_first(fabric: Fabric, make: Callable[[], T]) -> T:
    """Return what `make` returns on the first process, which alone calls it; all raise what it raises there."""
    made: tuple[T | None, Exception | None] = (None, None)
    if fabric.is_global_zero:
        try:
            made = make(), None
        except (ValueError, OSError) as error:
            made = None, error
    value, raised = from_each(fabric, made)[0]
    if raised is not None:
        raise raised
    return cast(T, value)
