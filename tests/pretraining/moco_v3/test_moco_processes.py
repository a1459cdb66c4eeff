"""MoCo v3 in two processes: weights, losses and gradients are those of one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine.records.record import read_record
from engine.training.resume import checkpoints

REPOSITORY = Path(__file__).resolve().parents[3]


SCRIPT = """
import sys
from pathlib import Path
from dataclasses import replace
from engine.config import Duration
from engine.training.loop import fit
from engine.training.seeding import seed_all
from pretraining.moco_v3.task import build_task
from pretraining.moco_v3.recipes import tiny_moco_v3

config = tiny_moco_v3()
schedule = replace(config.run.schedule, warmup=Duration(1))
run = replace(config.run, length=Duration(3), batch_size=8, precision="32-true", schedule=schedule, log_every=1)
backbone = replace(config.backbone, depth=2)
config = replace(config, backbone=backbone, hidden=32, width=16, momentum=0.5, run=run)
seed_all(0)
task = build_task(config, data=Path(sys.argv[1]), init=None)
fit(task, config, recipe="plain", out=Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_two_processes_are_one(data: Path, tmp_path: Path) -> None:
    """Keys and batch statistics are those of the global batch, so losses and weights are those of one process."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    for processes in (1, 2):
        _run(processes, [str(script), str(data), str(tmp_path / str(processes))])
    one, two = (torch.load(checkpoints(tmp_path / n)[-1], weights_only=True) for n in ("1", "2"))
    assert read_record(tmp_path / "2").world_size == 2
    for name, value in one["model"].items():
        made = two["model"][name]
        # of some the loss does not depend, so that their gradient is rounding, which Adam makes steps of: softmax does
        # not see the bias of the keys, and batch norm takes out what the last norm adds to all class tokens (its
        # running mean knows of it)
        if name.endswith(("encoder.norm.bias", "running_mean")):
            continue
        if name.endswith("attn.qkv.bias"):
            width = len(value) // 3
            made, value = (torch.cat([v[:width], v[2 * width :]]) for v in (made, value))
        # Adam divides by the root of the second moment, which amplifies the summation order of float32; three steps
        # move a weight by up to 3e-4
        difference = (made - value).abs().float()
        assert difference.mean() < 1e-6 and difference.max() < 1e-4, (name, difference.mean(), difference.max())


GRADIENTS = """
import os
import sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from backbones.config import ViTConfig
from backbones.vit import ViT
from pretraining.moco_v3.model import MoCoV3, momentum_at

torch.Tensor.float = lambda tensor: tensor  # all in float64, to compare closely
torch.set_default_dtype(torch.float64)
rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
torch.manual_seed(0)
vit = ViT(ViTConfig(embed_dim=16, depth=2, num_heads=2, patch_size=8, image_size=(32, 32)), train_position=False)
plain = MoCoV3(vit, hidden=24, width=8, temperature=0.2, freeze_patches=True)
model = plain
if world > 1:
    dist.init_process_group("gloo")
    model = DistributedDataParallel(plain)
optimizer = torch.optim.SGD([p for p in plain.parameters() if p.requires_grad], lr=0.1)
losses = []
for step in range(3):
    views = [view[rank * 8 // world : (rank + 1) * 8 // world] for view in torch.randn(2, 8, 3, 32, 32)]
    loss = model((*views, []))["contrast"]
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    plain.follow(momentum_at(step + 1, total=9, first=0.5))
    whole = loss.detach().clone()
    if world > 1:
        dist.all_reduce(whole)
    losses.append(whole / world)
if rank == 0:
    gradients = {n: p.grad for n, p in plain.named_parameters() if p.grad is not None}
    torch.save({"losses": losses, "gradients": gradients, "model": plain.state_dict()}, sys.argv[1])
"""


@pytest.mark.sweep
@pytest.mark.slow
def test_losses_and_gradients_of_two_processes_are_those_of_one(tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_text(GRADIENTS)
    made = []
    for processes in (1, 2):
        _run(processes, [str(tmp_path / "steps.py"), str(tmp_path / f"{processes}.pt")])
        made.append(torch.load(tmp_path / f"{processes}.pt", weights_only=True))
    one, two = made
    torch.testing.assert_close(two["losses"], one["losses"], rtol=1e-9, atol=0)
    assert len({float(loss) for loss in one["losses"]}) == 3
    for part in ("gradients", "model"):
        assert one[part].keys() == two[part].keys()
        for name, value in one[part].items():
            torch.testing.assert_close(two[part][name], value, rtol=1e-7, atol=1e-10)


def _run(processes: int, arguments: list[str]) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
