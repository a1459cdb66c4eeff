"""MoCo v3: the loss by hand and against the official one's lines, the momentum encoder, the views, and the task."""

import copy
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import classification.task
import pretraining.moco_task
from backbones.checkpoint import Normalisation
from backbones.config import ViTConfig
from backbones.sources.read import read_checkpoint
from backbones.vit import ViT
from classification.config import ClassificationConfig
from engine.config import Duration
from engine.loop import fit
from engine.record import read_record
from engine.resume import checkpoints
from engine.task import ActsAfterSteps, InitialWeights
from pretraining.collapse import effective_rank, feature_spread
from pretraining.config import MAEConfig
from pretraining.moco_config import MoCoConfig
from pretraining.moco_v3 import MoCoV3, contrast, initialise_encoder, momentum_at
from pretraining.moco_views import Blur, views
from pretraining.recipes import RECIPES

IDENTITY = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
REPOSITORY = Path(__file__).resolve().parents[2]
TINY = ViTConfig(embed_dim=16, depth=2, num_heads=2, patch_size=8, image_size=(32, 32))


@pytest.fixture
def config(mae_config: MAEConfig) -> MoCoConfig:
    run = replace(mae_config.run, precision="32-true")
    return MoCoConfig(backbone=mae_config.backbone, run=run, hidden=24, width=8)


def model(*, freeze_patches: bool = True) -> MoCoV3:
    torch.manual_seed(0)
    encoder = ViT(TINY, train_position=False)
    initialise_encoder(encoder)
    return MoCoV3(
        encoder,
        hidden=24,
        width=8,
        temperature=0.2,
        freeze_patches=freeze_patches,
    )


def test_contrast_by_hand() -> None:
    # the length of a vector does not matter; cosines 1 and 0.6 for the first query, 0 and 0.8 for the second
    queries = torch.tensor([[2.0, 0.0], [0.0, 0.5]])
    keys = torch.tensor([[3.0, 0.0], [0.6, 0.8]])
    losses = contrast(queries, keys, 0.5)
    by_hand = [
        -math.log(math.exp(1 / 0.5) / (math.exp(1 / 0.5) + math.exp(0.6 / 0.5))),
        -math.log(math.exp(0.8 / 0.5) / (math.exp(0 / 0.5) + math.exp(0.8 / 0.5))),
    ]
    assert losses.tolist() == pytest.approx([2 * 0.5 * value for value in by_hand])
    # the second process of two: its only query belongs to the key after the first process's
    assert contrast(queries[1:], keys, 0.5, first=1).tolist() == pytest.approx([by_hand[1]])


def test_without_any_difference_the_loss_is_that_of_guessing() -> None:
    same = torch.ones(7, 4)
    assert contrast(same, same, 0.2).tolist() == pytest.approx([2 * 0.2 * math.log(7)] * 7)


def test_contrast_is_in_float32_under_autocast() -> None:
    queries, keys = torch.randn(4, 8), torch.randn(4, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(contrast(queries, keys, 0.2), contrast(queries, keys, 0.2).float())
        made = contrast(queries, keys, 0.2)
    assert torch.equal(made, contrast(queries, keys, 0.2))


def test_momentum_by_hand() -> None:
    at = [momentum_at(step, total=100, first=0.99) for step in (0, 25, 50)]
    assert at == pytest.approx([0.99, 1 - 0.01 * (1 + 0.5**0.5) / 2, 0.995])  # half of the way to 1 at half of the run
    assert momentum_at(100, total=100, first=0.99) == 1.0


def official_mlp(ours: nn.Module) -> nn.Sequential:
    """`_build_mlp` of moco/builder.py, with the weights of ours."""
    parts: list[nn.Module] = []
    linear = [m for m in ours.modules() if isinstance(m, nn.Linear)]
    for number, layer in enumerate(linear):
        parts.append(nn.Linear(layer.in_features, layer.out_features, bias=False))
        last = number == len(linear) - 1
        parts.append(nn.BatchNorm1d(layer.out_features, affine=not last))
        parts += [] if last else [nn.ReLU(inplace=True)]
    made = nn.Sequential(*parts)
    made.load_state_dict(ours.state_dict())
    return made.to(linear[0].weight.dtype)


def official_loss(q: Tensor, k: Tensor, T: float) -> Tensor:
    """`contrastive_loss` of moco/builder.py in one process."""
    q, k = nn.functional.normalize(q, dim=1), nn.functional.normalize(k, dim=1)
    logits = torch.einsum("nc,mc->nm", [q, k]) / T
    return nn.CrossEntropyLoss()(logits, torch.arange(logits.shape[0])) * (2 * T)


class OfficialMoCo(nn.Module):
    """`forward` of moco/builder.py on copies of our parts."""

    def __init__(self, ours: MoCoV3) -> None:
        super().__init__()
        self.encoder, self.m_encoder = copy.deepcopy(ours.base.encoder), copy.deepcopy(ours.momentum.encoder)
        self.head, self.m_head = official_mlp(ours.base.head), official_mlp(ours.momentum.head)
        self.predictor = official_mlp(ours.predictor)

    def forward(self, x1: Tensor, x2: Tensor, m: float) -> Tensor:
        q1 = self.predictor(self.head(self.encoder(x1)[:, 0]))
        q2 = self.predictor(self.head(self.encoder(x2)[:, 0]))
        with torch.no_grad():
            pairs = [(self.encoder, self.m_encoder), (self.head, self.m_head)]
            for base, momentum in pairs:
                for param_b, param_m in zip(base.parameters(), momentum.parameters(), strict=True):
                    param_m.data = param_m.data * m + param_b.data * (1.0 - m)
            k1 = self.m_head(self.m_encoder(x1)[:, 0])
            k2 = self.m_head(self.m_encoder(x2)[:, 0])
        return official_loss(q1, k2, 0.2) + official_loss(q2, k1, 0.2)


def test_three_steps_equal_the_official_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    # ours takes cosines in float32 whatever the weights are; kept in float64 here to compare closely
    monkeypatch.setattr(Tensor, "float", lambda tensor: tensor)
    ours = model().double()
    theirs = OfficialMoCo(ours)
    optimizers = [torch.optim.SGD([p for p in m.parameters() if p.requires_grad], lr=0.5) for m in (ours, theirs)]
    for step in range(3):
        first, second = torch.randn(2, 6, 3, 32, 32, dtype=torch.float64)
        m = 1.0 - 0.5 * (1.0 + math.cos(math.pi * step / 4)) * (1.0 - 0.9)  # adjust_moco_momentum
        if step:  # after the step before; theirs follows in the forward pass, at step 0 from equal weights
            ours.follow(momentum_at(step, total=4, first=0.9))
        losses = [ours((first, second, [])), {"contrast": theirs(first, second, m)}]
        assert losses[0]["contrast"].item() == pytest.approx(losses[1]["contrast"].item(), rel=1e-9)
        for loss, optimizer in zip(losses, optimizers, strict=True):
            optimizer.zero_grad()
            loss["contrast"].backward()
            optimizer.step()
    for mine, other in (
        (ours.base.encoder, theirs.encoder),
        (ours.momentum.encoder, theirs.m_encoder),
        (ours.base.head, theirs.head),
        (ours.momentum.head, theirs.m_head),
        (ours.predictor, theirs.predictor),
    ):
        expected = other.state_dict()
        for name, value in mine.state_dict().items():  # running statistics too
            torch.testing.assert_close(value, expected[name], rtol=1e-7, atol=1e-9, msg=name)


def test_momentum_follows_once_a_step(config: MoCoConfig, data: Path) -> None:
    run = replace(config.run, length=Duration(2), accumulate=2)
    task = pretraining.moco_task.build_task(replace(config, run=run, momentum=0.5), data=data, init=None)
    assert isinstance(task, ActsAfterSteps)
    with torch.no_grad():
        for parameter in task.model.base.parameters():
            parameter.add_(1.0)
    before = {name: p.clone() for name, p in task.model.momentum.named_parameters()}
    batch = (torch.randn(4, 3, 32, 32), torch.randn(4, 3, 32, 32), [""] * 4)

    def moved() -> float:
        distances = [(p - before[name]).mean().item() for name, p in task.model.momentum.named_parameters()]
        return sum(distances) / len(distances)

    task.model.train()(batch)
    assert moved() == 0  # a micro-batch moves nothing
    task.after_step(1, 2)
    assert moved() == pytest.approx(0.25, abs=1e-5)  # at half of the run it keeps 0.75
    task.after_step(2, 2)
    assert moved() == pytest.approx(0.25, abs=1e-5)  # and all at its end


def test_equal_branches_stay_equal_bit_for_bit() -> None:
    """Which is why the first keys are those of MoCo v3's code, whose branch follows before it makes them."""
    ours = model()
    for kept in (0.01, 0.99):
        ours.follow(kept)
        assert all(torch.equal(a, b) for a, b in zip(ours.base.parameters(), ours.momentum.parameters(), strict=True))


@pytest.mark.parametrize("freeze", [True, False])
def test_gradients(freeze: bool) -> None:
    ours = model(freeze_patches=freeze)
    ours((torch.randn(4, 3, 32, 32), torch.randn(4, 3, 32, 32), []))["contrast"].backward()
    fixed = {"encoder.pos_embed", *(["encoder.patch_embed.proj.weight", "encoder.patch_embed.proj.bias"] * freeze)}
    for name, parameter in ours.base.named_parameters():
        assert (parameter.grad is None) == (name in fixed), name
    assert all(p.grad is not None for p in ours.predictor.parameters())
    assert all(p.grad is None and not p.requires_grad for p in ours.momentum.parameters())


def test_initial_weights_by_their_bounds() -> None:
    encoder = ViT(ViTConfig(embed_dim=64, depth=1, num_heads=2, patch_size=8, image_size=(32, 32)))
    initialise_encoder(encoder)
    qkv = encoder.get_parameter("blocks.0.attn.qkv.weight")
    assert float(qkv.detach().abs().max()) == pytest.approx(math.sqrt(6 / 128), rel=0.01)  # each a matrix of 64 by 64
    patches = encoder.get_parameter("patch_embed.proj.weight")
    assert float(patches.detach().abs().max()) == pytest.approx(math.sqrt(6 / (3 * 8 * 8 + 64)), rel=0.01)
    assert 0 < float(encoder.get_parameter("cls_token").detach().abs().max()) < 1e-5


def test_collapse_by_hand() -> None:
    assert feature_spread(torch.ones(5, 3)) == 0.0
    assert effective_rank(torch.ones(5, 3)) == 0.0
    # the four directions of a plane: each channel has a variance of 1 / 2
    cross = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert feature_spread(cross * 7).item() == pytest.approx(1.0)
    assert effective_rank(cross).item() == pytest.approx(2.0)
    line = torch.arange(6.0)[:, None] * torch.tensor([[1.0, 2.0, 3.0]])
    assert effective_rank(line).item() == pytest.approx(1.0, abs=1e-6)
    # singular values 2 and 1: shares 2 / 3 and 1 / 3
    entropy = -(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3)
    assert effective_rank(cross * torch.tensor([2.0, 1.0])).item() == pytest.approx(math.exp(entropy))
    spread = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    values = np.linalg.svd(spread.double().numpy() - spread.double().numpy().mean(axis=0), compute_uv=False)[:4]
    shares = values / values.sum()
    # the fifth singular value is zero but for rounding
    assert effective_rank(spread).item() == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-5)


def test_views_differ_as_stated() -> None:
    first, second = views((8, 8), IDENTITY, scale=(0.5, 1.0), blur=(0.1, 0.6))
    white = Image.new("RGB", (16, 16), (255, 255, 255))
    torch.manual_seed(0)
    # jitter leaves at least 0.6 of white, which solarising turns below half
    shares = [sum(float(view(white).mean()) < 0.5 for _ in range(1000)) / 1000 for view in (first, second)]
    assert shares[0] == 0.0
    assert shares[1] == pytest.approx(0.2, abs=0.04)  # three deviations


@pytest.mark.parametrize(("probability", "share"), [(1.0, 1.0), (0.1, 0.1)])
def test_blur(probability: float, share: float) -> None:
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8))
    blur = Blur(probability, (0.5, 0.5))
    blurred = sum(blur(noisy).tobytes() != noisy.tobytes() for _ in range(1000)) / 1000
    assert blurred == pytest.approx(share, abs=0.03)


def test_task(config: MoCoConfig, data: Path, tmp_path: Path) -> None:
    task = pretraining.moco_task.build_task(config, data=data, init=None)
    assert (task.name, task.facts.train_images, task.facts.val_images) == ("moco_v3", 6, 4)
    decay = {name: g.weight_decay for g in task.param_groups(config.run.optim) for name in g.names}
    assert set(decay) == {name for name, p in task.model.named_parameters() if p.requires_grad}
    assert set(decay.values()) == {config.run.optim.weight_decay}  # norms and biases too
    batch = task.collate([task.val_data[i] for i in range(4)])
    task.model.eval()
    with torch.no_grad():
        results = task.predict(batch)
        total = task.model(batch)["contrast"].item()
    scores = task.score(results)
    assert scores["val_loss"] == pytest.approx(total, rel=1e-6)
    assert set(scores) == {"val_loss", "feature_spread", "feature_rank"}
    with pytest.raises(ValueError, match="no image of split val could be evaluated"):
        task.score([])
    (picture,) = task.draw(results, tmp_path / "pictures")
    with Image.open(picture) as image:
        assert image.format == "PNG"


def test_resume_is_exact_and_the_backbone_is_read(
    config: MoCoConfig, class_config: ClassificationConfig, data: Path, tmp_path: Path
) -> None:
    run = replace(config.run, length=Duration(4), save_every=Duration(2), accumulate=2, keep_last=3)
    config = replace(config, run=run, momentum=0.5)

    def train(out: Path) -> dict[str, Any]:
        torch.manual_seed(0)
        task = pretraining.moco_task.build_task(config, data=data, init=None)
        fit(task, config, recipe="tiny", out=out, resume=True)
        return torch.load(checkpoints(out)[-1], weights_only=True)["model"]

    whole = train(tmp_path / "run")
    checkpoints(tmp_path / "run")[-1].unlink()  # back to step 2
    again = train(tmp_path / "run")
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    record = read_record(tmp_path / "run")
    assert list(record.losses) == ["contrast", "feature_spread", "feature_rank", "loss"]
    assert record.losses["loss"] == record.losses["contrast"]  # the others are watched, not trained for
    assert 0 < record.losses["feature_spread"] < 1.1
    assert 1 <= record.losses["feature_rank"] <= 1.01  # two images differ along one line
    assert {"val_loss", "feature_spread", "feature_rank"} == set(record.metrics)

    path = tmp_path / "run" / "backbone.safetensors"
    checkpoint = read_checkpoint(path)
    assert checkpoint.source == "moco_v3"
    for name, value in checkpoint.state.items():  # the trained encoder, its patch projection included
        assert torch.equal(value, whole[f"base.encoder.{name}"])
    transferred = classification.task.build_task(class_config, data=data, init=InitialWeights(path=path))
    assert transferred.facts.weights.source == "moco_v3"


@pytest.mark.parametrize(
    ("changes", "run", "said"),
    [
        ({"momentum": 1.0}, {}, "momentum is 1.0; it must be at least 0 and below 1"),
        ({"temperature": 0.0}, {}, "temperature is 0.0; it must be above 0"),
        ({}, {"accumulate": 4}, "batch_size 4 with accumulate 4 leaves one image at a time"),
    ],
)
def test_config_refuses(changes: dict[str, Any], run: dict[str, Any], said: str, config: MoCoConfig) -> None:
    with pytest.raises(ValueError, match=said):
        replace(config, run=replace(config.run, **run), **changes)


def test_arms_see_the_same_number_of_images() -> None:
    for name in ("tiny", "small"):
        mae, moco = RECIPES[name](), RECIPES[f"{name}_moco_v3"]()
        assert isinstance(moco, MoCoConfig)
        assert (mae.run.length, mae.run.batch_size) == (moco.run.length, moco.run.batch_size)


SCRIPT = """
import sys
from pathlib import Path
from dataclasses import replace
from engine.config import Duration
from engine.loop import fit
from engine.seeding import seed_all
from pretraining.build import build_task
from pretraining.moco_recipes import tiny_moco_v3

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
from pretraining.moco_v3 import MoCoV3, momentum_at

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
