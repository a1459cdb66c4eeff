"""Batches on the device: a GPU is sent the next one while it computes on this one."""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch
from lightning_fabric import Fabric

from engine.training.data import Batch


def on_device(batches: Generator[Batch], fabric: Fabric) -> Generator[Batch]:
    """Yield the batches with their data on the device; to close it closes `batches`.

    On a GPU a batch is copied on a stream of its own from when the one before it is taken, out of memory that the
    loader has pinned.
    """
    with closing(batches):
        if fabric.device.type == "cuda" and torch.cuda.is_available():
            yield from _ahead(batches, fabric.to_device, fabric.device)
        else:
            for batch in batches:
                yield replace(batch, data=fabric.to_device(batch.data))


def _ahead(batches: Generator[Batch], move: Callable[[Any], Any], device: torch.device) -> Generator[Batch]:
    stream = torch.cuda.Stream(device)
    waiting: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        # the memory of a batch that was given up is taken again by later ones, not before its last use is over
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            copied = replace(batch, data=move(batch.data))
        following = copied, stream.record_event()
        if waiting is not None:
            yield _arrived(waiting, device)
        waiting = following
        del copied, following
    if waiting is not None:
        yield _arrived(waiting, device)


def _arrived(sent: tuple[Batch, torch.cuda.Event], device: torch.device) -> Batch:
    batch, event = sent
    torch.cuda.current_stream(device).wait_event(event)
    return batch
