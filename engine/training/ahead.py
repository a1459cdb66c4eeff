"""Batches on the device: a GPU is sent the next one while it computes on this one."""

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch
from lightning_fabric import Fabric

from engine.images.encoded import EncodedBatch
from engine.task import ImageData, LeavesDecoding
from engine.training.data import Batch

DECODING = {"cuda"}  # kinds of devices that images are decoded on


def check_decoding(data: ImageData, device: torch.device) -> None:
    """Raise ValueError where the device is to decode images and cannot."""
    if isinstance(data, LeavesDecoding) and data.decoded_on_device and device.type not in DECODING:
        raise ValueError(
            f"decode device: a GPU decodes the images by nvJPEG, and this run is on {device.type}; take --decode full "
            "or reduced, or a machine with CUDA."
        )


def on_device(batches: Generator[Batch], fabric: Fabric, say: Callable[[str], None] | None = None) -> Generator[Batch]:
    """Yield the batches with their data on the device; to close it closes `batches`.

    On a GPU a batch is copied on a stream of its own from when the one before it is taken, out of memory that the
    loader has pinned. Images that are decoded on the device are so on that stream; which of them were not is counted,
    and said in the end.
    """
    left = Counter[str]()

    def move(data: Any) -> Any:
        moved = fabric.to_device(data)
        for part in data if isinstance(data, tuple) else ():
            if isinstance(part, EncodedBatch):
                left.update(part.by_cpu)
        return moved

    with closing(batches):
        try:
            if fabric.device.type == "cuda" and torch.cuda.is_available():
                yield from _ahead(batches, move, fabric.device)
            else:
                for batch in batches:
                    yield replace(batch, data=move(batch.data))
        finally:
            if left and say is not None:
                listed = ", ".join(f"{count} {reason}" for reason, count in left.most_common())
                say(f"decoded on the CPU, not on the device: {listed}")


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
