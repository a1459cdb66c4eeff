"""Batch norm over two gloo processes equals batch norm over the whole batch."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from engine.training.sync_norm import SyncBatchNorm
from tests.pretend_cuda import pretended

REPOSITORY = Path(__file__).resolve().parents[3]
SCRIPT = """
import sys
import torch
import torch.distributed as dist
from engine.training.sync_norm import SyncBatchNorm

dist.init_process_group("gloo")
rank = dist.get_rank()
given = torch.load(sys.argv[1])
norm = SyncBatchNorm(3)
norm.load_state_dict(given["state"])
x = given["x"][:3] if rank == 0 else given["x"][3:]  # three images and one
x = x.clone().requires_grad_()
for _ in range(2):
    y = norm(x)
(y * (given["weight"][:3] if rank == 0 else given["weight"][3:])).sum().backward()
torch.save({"y": y.detach(), "dx": x.grad, "dw": norm.weight.grad, "state": norm.state_dict()}, f"{sys.argv[2]}/{rank}")
dist.destroy_process_group()
"""


def test_two_processes_normalise_as_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x, weight = 2 + 3 * torch.randn(4, 3, 5, 2), torch.randn(4, 3, 5, 2)
    plain = nn.BatchNorm2d(3)
    nn.init.uniform_(plain.weight)
    nn.init.uniform_(plain.bias)
    torch.save({"x": x, "weight": weight, "state": plain.state_dict()}, tmp_path / "given")
    (tmp_path / "two.py").write_text(SCRIPT)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(tmp_path / "two.py"), str(tmp_path / "given"), str(tmp_path)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]

    x.requires_grad_()
    for _ in range(2):
        y = plain(x)
    (y * weight).sum().backward()
    parts = [torch.load(tmp_path / name) for name in ("0", "1")]
    # E[x^2] - E[x]^2 in float32 against PyTorch's two passes: a few units in the last place
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(torch.cat([part["y"] for part in parts]), y.detach(), **close)
    torch.testing.assert_close(torch.cat([part["dx"] for part in parts]), x.grad, **close)
    torch.testing.assert_close(parts[0]["dw"] + parts[1]["dw"], plain.weight.grad, **close)
    for part in parts:
        for name, value in plain.state_dict().items():
            torch.testing.assert_close(part["state"][name], value, **close)


@pytest.mark.parametrize("training", [True, False])
def test_alone_it_is_batch_norm(training: bool) -> None:
    x = torch.randn(4, 3, 5, 2)
    ours, plain = SyncBatchNorm(3).train(training), nn.BatchNorm2d(3).train(training)
    assert torch.equal(ours(x), plain(x)) and torch.equal(ours.running_var, plain.running_var)


def test_on_a_gpu_it_is_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one process, whose statistics are its own; DDP takes it for no nn.SyncBatchNorm, which it refuses on CPUs."""
    ours, plain = SyncBatchNorm(3), nn.BatchNorm2d(3)
    assert not isinstance(ours, nn.SyncBatchNorm)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda group: 1)
    monkeypatch.setattr("torch.distributed.group", SimpleNamespace(WORLD=None))
    x = torch.randn(4, 3, 5, 2)
    with pretended() as device:
        made = ours.to(device)(x.to(device))
        assert made.device == device
        torch.testing.assert_close(made.cpu(), plain(x))
