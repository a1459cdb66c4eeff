"""Batches on the device: on a GPU the next one is copied while this one is used; how a run loads."""

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.training import ahead
from engine.training.ahead import on_device
from engine.training.data import MOST_WORKERS, Batch, Loading, loading_for

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


class Streams:
    """Stands in for torch.cuda: writes down what is done on which stream, in order."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.events = 0

    def is_available(self) -> bool:
        return True

    def Stream(self, device: torch.device) -> Any:
        return SimpleNamespace(wait_stream=lambda other: self.said.append("copies wait"), record_event=self._event)

    def current_stream(self, device: torch.device) -> Any:
        return SimpleNamespace(wait_event=lambda event: self.said.append(f"wait for copy {event}"))

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        self.said.append("(")
        yield
        self.said.append(")")

    def _event(self) -> int:
        self.events += 1
        return self.events


def batches(count: int, closed: list[str]) -> Generator[Batch]:
    try:
        for number in range(1, count + 1):
            yield Batch(number, (f"image {number}",), (), (number,))
    finally:
        closed.append("closed")


def fabric(device: torch.device, said: list[str]) -> Any:
    def move(data: Any) -> Any:
        said.append(f"copy {data}")
        return -data

    return SimpleNamespace(device=device, to_device=move)


def test_a_cpu_gets_each_batch_when_it_asks() -> None:
    said: list[str] = []
    closed: list[str] = []
    got = [(batch.data, batch.ids) for batch in on_device(batches(2, closed), fabric(CPU, said))]
    assert got == [(-1, ("image 1",)), (-2, ("image 2",))]
    assert said == ["copy 1", "copy 2"] and closed == ["closed"]


def test_a_gpu_is_sent_the_next_batch_before_it_is_given_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    streams, closed = Streams(), []
    monkeypatch.setattr(ahead.torch, "cuda", streams)
    for batch in on_device(batches(3, closed), fabric(GPU, streams.said)):
        streams.said.append(f"use {batch.data}")
    first, second, third = (["copies wait", "(", f"copy {number}", ")"] for number in (1, 2, 3))
    used = [[f"wait for copy {number}", f"use {-number}"] for number in (1, 2, 3)]
    assert streams.said == [*first, *second, *used[0], *third, *used[1], *used[2]]
    assert closed == ["closed"]


def test_closing_ends_the_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    for device in (CPU, GPU):
        streams = Streams()
        with monkeypatch.context() as patch:
            patch.setattr(ahead.torch, "cuda", streams)
            made = on_device(batches(3, closed), fabric(device, streams.said))
            next(made)
            made.close()
    assert closed == ["closed", "closed"]


@pytest.mark.parametrize(
    ("workers", "device", "cores", "processes", "expected"),
    [
        ("auto", CPU, 64, 1, 0),  # a CPU trains with its cores
        ("auto", GPU, 16, 1, 15),
        ("auto", GPU, 64, 1, MOST_WORKERS),
        ("auto", GPU, 80, 8, 9),
        ("auto", GPU, 1, 1, 1),
        ("auto", GPU, 2, 4, 1),
        (3, CPU, 64, 1, 3),
        (0, GPU, 64, 1, 0),
    ],
)
def test_workers_follow_the_cores_where_a_gpu_trains(
    workers: Any, device: torch.device, cores: int, processes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert loading_for(workers, device) == Loading(workers=expected, pinned=False)  # without CUDA nothing is pinned


def test_batches_are_pinned_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert loading_for(0, GPU).pinned and not loading_for(0, CPU).pinned


def test_a_batch_pins_its_tensors_and_keeps_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[tuple[int, ...]] = []

    def pin(tensor: torch.Tensor, *_: Any) -> torch.Tensor:
        pinned.append(tuple(tensor.shape))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    data = ([torch.zeros(2, 3)], {"label": torch.zeros(4)}, ["name"])
    made = Batch(data, ("a", "b"), (), (0, 1)).pin_memory()
    assert pinned == [(2, 3), (4,)] and made.ids == ("a", "b") and made.data[2] == ["name"]
