"""Threads and GPUs of runs side by side."""

import pytest
import torch

from engine.share import Share, shares


def test_shares_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert shares(1) == [Share()]
    assert shares(3) == [Share(threads=2)] * 3
    assert shares(16) == [Share(threads=1)] * 16
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-5a")
    assert [share.gpu for share in shares(3)] == ["4", "GPU-5a", "4"]
