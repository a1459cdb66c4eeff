"""Threads and GPUs of runs side by side."""

from pathlib import Path

import pytest
import torch

from engine.device import make_fabric
from engine.share import Share, shares


def test_shares_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert shares(1) == [Share()]
    assert shares(3) == [Share(threads=2)] * 3
    assert shares(16) == [Share(threads=1)] * 16
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-5a")
    assert [share.gpu for share in shares(3)] == ["4", "GPU-5a", "4"]


def test_gpus_are_those_of_the_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("engine.share.NVIDIA", tmp_path)
    for name in ("0000:01:00.0", "0000:41:00.0"):
        (tmp_path / name).mkdir()
    assert [share.gpu for share in shares(3)] == ["0", "1", "0"]
    monkeypatch.setattr("engine.share.NVIDIA", tmp_path / "none")
    assert [share.gpu for share in shares(2)] == [None, None]


def test_a_fabric_keeps_to_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a fork of a process that has imported torch: it does not look at the variable again by itself."""
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", str(before + 1))
    try:
        make_fabric("32-true")
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
