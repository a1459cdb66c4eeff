"""A run of the official MAE code goes on here: its next step is that of torch's own AdamW on the official model."""

from argparse import Namespace
from dataclasses import replace
from functools import partial
from pathlib import Path, PosixPath
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import Block, PatchEmbed
from torch import Tensor, nn
from torch.amp import GradScaler

import pretraining.mae.task
from engine.config import Duration, OptimConfig, ScheduleConfig
from engine.device import make_fabric
from engine.records.record import read_record
from engine.training.optim import build_optimizer, set_lr
from engine.training.resume import Trained, checkpoints, load_latest
from engine.training.schedule import lr_factor
from pretraining.mae.config import MAEConfig
from pretraining.mae.model import patchify
from pretraining.mae.official import read_official
from pretraining.spec import MAE
from tools import pretrain

NORM = partial(nn.LayerNorm, eps=1e-6)
BATCH, EPOCHS, WARMUP, RATE, DECAY = 2, 6, 1, 1e-2, 0.05
FROZEN = ("pos_embed", "decoder_pos_embed")
SCALER = {
    "scale": 65536.0,
    "growth_factor": 2.0,
    "backoff_factor": 0.5,
    "growth_interval": 2000,
    "_growth_tracker": 0,
}


class OfficialMAE(nn.Module):
    """MaskedAutoencoderViT of models_mae.py at 32 px, with the order in which it registers its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(32, 8, 3, 16)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 16))
        self.pos_embed = nn.Parameter(torch.randn(1, 17, 16), requires_grad=False)
        self.blocks = nn.ModuleList(Block(16, 2, 4.0, qkv_bias=True, norm_layer=NORM) for _ in range(2))
        self.norm = NORM(16)
        self.decoder_embed = nn.Linear(16, 12)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 12))
        self.decoder_pos_embed = nn.Parameter(torch.randn(1, 17, 12), requires_grad=False)
        self.decoder_blocks = nn.ModuleList(Block(12, 3, 4.0, qkv_bias=True, norm_layer=NORM) for _ in range(1))
        self.decoder_norm = NORM(12)
        self.decoder_pred = nn.Linear(12, 192)
        for parameter in self.parameters():
            if parameter.requires_grad:
                nn.init.normal_(parameter, std=0.2)

    def forward(self, image: Tensor, noise: Tensor) -> Tensor:
        x = self.patch_embed(image) + self.pos_embed[:, 1:]
        shuffle = noise.argsort(dim=1)
        restore = shuffle.argsort(dim=1)
        x = x.gather(1, shuffle[:, :4, None].repeat(1, 1, 16))
        x = torch.cat([(self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        x = self.decoder_embed(self.norm(x))
        filled = torch.cat([x[:, 1:], self.mask_token.repeat(len(x), 12, 1)], dim=1)
        filled = filled.gather(1, restore[:, :, None].repeat(1, 1, 12))
        x = torch.cat([x[:, :1], filled], dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        prediction = self.decoder_pred(self.decoder_norm(x))[:, 1:]
        target = patchify(image, 8)
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6) ** 0.5
        mask = (restore >= 4).float()
        return (((prediction - target) ** 2).mean(-1) * mask).sum() / mask.sum()


def official_optimizer(model: nn.Module) -> torch.optim.AdamW:
    """AdamW as main_pretrain.py makes it, over timm's `add_weight_decay`."""
    free, decayed = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (free if parameter.ndim == 1 or name.endswith(".bias") else decayed).append(parameter)
    groups = [{"params": free, "weight_decay": 0.0}, {"params": decayed, "weight_decay": DECAY}]
    return torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95))


def official_rate(epoch: float) -> float:
    """util/lr_sched.py with min_lr 0."""
    if epoch < WARMUP:
        return RATE * epoch / WARMUP
    return RATE * 0.5 * (1.0 + torch.cos(torch.tensor(torch.pi * (epoch - WARMUP) / (EPOCHS - WARMUP))).item())


def batches() -> Any:
    generator = torch.Generator().manual_seed(1)
    while True:
        yield torch.randn(BATCH, 3, 32, 32, generator=generator), torch.rand(BATCH, 16, generator=generator)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor], epoch: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = official_rate(epoch)
    optimizer.zero_grad()
    model(*batch).backward()
    optimizer.step()


def saved(path: Path, **changes: Any) -> tuple[OfficialMAE, torch.optim.AdamW, Any]:
    """Train two epochs of three batches, save as util/misc.py does, and return what was trained."""
    torch.manual_seed(0)
    model = OfficialMAE()
    optimizer, stream = official_optimizer(model), batches()
    for number in range(6):
        step(model, optimizer, next(stream), number / 3)
    arguments = {
        "batch_size": BATCH,
        "accum_iter": 1,
        "world_size": 1,
        "epochs": EPOCHS,
        "warmup_epochs": WARMUP,
        "lr": RATE,
        "weight_decay": DECAY,
        "mask_ratio": 0.75,
        "norm_pix_loss": True,
        "output_dir": PosixPath("out"),
    }
    content = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 1,
        "scaler": SCALER,
        "args": Namespace(**{**arguments, **changes.pop("arguments", {})}),
    }
    torch.save({name: value for name, value in {**content, **changes}.items() if value is not None}, path)
    return model, optimizer, stream


@pytest.fixture
def config(mae_config: MAEConfig, tmp_path: Path) -> MAEConfig:
    run = replace(
        mae_config.run,
        length=Duration(EPOCHS, "epochs"),
        batch_size=BATCH,
        optim=OptimConfig(base_lr=RATE, base_batch_size=BATCH, betas=(0.9, 0.95), weight_decay=DECAY),
        schedule=ScheduleConfig(warmup=Duration(WARMUP, "epochs")),
        precision="32-true",
    )
    return replace(mae_config, run=run, resume_from=str(tmp_path / "checkpoint-1.pth"))


def test_the_next_step_is_the_official_one(config: MAEConfig, data: Path, tmp_path: Path) -> None:
    model, optimizer, stream = saved(tmp_path / "checkpoint-1.pth")
    task = pretraining.mae.task.build_task(config, data=data, init=None)
    head, *notes = task.facts.weights.lines()
    assert head.startswith("checkpoint-1.pth (mae, sha256 ") and head.endswith("50 tensors loaded")
    # two epochs of six images in batches of two are behind it
    assert notes == ["  note encoder and decoder, and 48 states of AdamW; training goes on at step 6 of 18"]

    out = tmp_path / "run"
    task.write_start(out)
    assert [p.name for p in checkpoints(out)] == ["step-00000006.pt"]
    # a run as the loop builds it, restored by the loop's own code
    fresh = pretraining.mae.task.build_task(replace(config, resume_from=None), data=data, init=None)
    ours = build_optimizer(fresh.param_groups(config.run.optim), config.run.optim, peak_lr=RATE)
    progress, problems = load_latest(out, Trained(model=fresh.model, optimizer=ours), make_fabric("32-true"))
    assert progress is not None and (progress.step, problems) == (6, [])

    for number in (6, 7):
        batch = next(stream)
        step(model, optimizer, batch, number / 3)
        set_lr(ours, RATE * lr_factor(config.run.schedule, number, total_steps=18, warmup_steps=3))
        ours.zero_grad()
        fresh.model((*batch, []))["reconstruction"].backward()
        ours.step()
        made = fresh.model.state_dict()
        for name, value in model.state_dict().items():
            mine = name if name.startswith(("decoder_", "mask_token")) else f"encoder.{name}"
            difference = (made[mine] - value).abs()
            if name.endswith("qkv.bias"):
                # softmax does not see the bias of the keys: its gradient is rounding, which Adam makes steps of
                width = len(value) // 3
                difference = torch.cat([difference[:width], difference[2 * width :]])
            # float32: the order of sums, through Adam's division by the second moment; a step moves a weight by 1e-2
            assert difference.max() < 2e-5, name


def test_the_tool_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: MAEConfig) -> None:
    file, out = tmp_path / "checkpoint-1.pth", tmp_path / "run"
    saved(file)
    monkeypatch.setitem(MAE.recipes, "official", lambda: replace(config, resume_from=None))
    arguments = ["official", "--data", str(data), "--out", str(out), "--resume-from", str(file)]
    assert pretrain.main(arguments) == 0
    record = read_record(out)
    assert (record.status, record.steps, record.weights_source) == ("completed", 18, "mae")
    assert record.departures == (f"resume_from: None -> {file}",)
    assert record.weights_sha256 == read_official(file).digest()
    rows = (out / "metrics.csv").read_text().splitlines()
    assert min(int(row.split(",")[0]) for row in rows[1:]) > 6
    # Adam counts the official steps too
    state = torch.load(checkpoints(out)[-1], weights_only=True)["optimizer"]["state"]
    assert {int(s["step"]) for s in state.values()} == {18}
    # an interrupted run goes on from its own checkpoint, not from the file again
    assert pretrain.main([*arguments, "--resume"]) == 0
    assert read_record(out).steps == 18


def test_a_published_file_starts_at_step_0(config: MAEConfig, data: Path, tmp_path: Path) -> None:
    saved(tmp_path / "checkpoint-1.pth", optimizer=None, epoch=None, scaler=None, args=None)
    task = pretraining.mae.task.build_task(config, data=data, init=None)
    assert task.facts.weights.lines()[1:] == [
        "  note encoder and decoder, and no optimiser state, so AdamW starts anew; training goes on at step 0 of 18",
        "  note the file holds no arguments that can be read, so they were not compared with the recipe's",
    ]
    task.write_start(tmp_path / "run")
    assert [p.name for p in checkpoints(tmp_path / "run")] == ["step-00000000.pt"]


@pytest.mark.parametrize("before", ["module.", "_orig_mod.", "module._orig_mod.", "model.module.", "model.encoder."])
def test_wrappers_are_taken_off(before: str, config: MAEConfig, data: Path, tmp_path: Path) -> None:
    """Of DistributedDataParallel, torch.compile and Lightning, in any nesting; AdamW's numbers follow the order."""
    model, _, _ = saved(tmp_path / "plain.pth")
    plain = read_official(tmp_path / "plain.pth")
    wrapped = {before + name: tensor for name, tensor in model.state_dict().items()}
    saved(tmp_path / "checkpoint-1.pth", model=wrapped)
    found = read_official(tmp_path / "checkpoint-1.pth")
    assert list(found.model) == list(plain.model) and found.moments.keys() == plain.moments.keys() != set()
    assert all(torch.equal(found.model[name], tensor) for name, tensor in plain.model.items())
    assert pretraining.mae.task.build_task(config, data=data, init=None).facts.weights.lines()


def test_what_differs_is_noted(config: MAEConfig, data: Path, tmp_path: Path) -> None:
    arguments = {"epochs": 800, "mask_ratio": 0.5, "lr": 1e-3, "world_size": 4}
    saved(tmp_path / "checkpoint-1.pth", arguments=arguments)
    notes = pretraining.mae.task.build_task(config, data=data, init=None).facts.weights.lines()[2:]
    assert notes == [
        "  note batch: the file's run had 8, this one has 2",
        "  note lr: the file's run had 0.001, this one has 0.01",
        "  note visible patches: the file's run had 8, this one has 4",
        "  note epochs: the file's run had 800, this one has 6",
    ]


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"arguments": {"norm_pix_loss": False}}, {}, r"norm_pix_loss=False, .* add --target pixels"),
        ({"epoch": 5}, {}, r"has 6 epochs behind it, and the run is over after 6 epochs"),
        ({}, {"decoder_depth": 2}, r"its model is not the recipe's: 12 parameters differ .*decoder_blocks\.1"),
        (
            {"optimizer": {"state": {}, "param_groups": [{"params": [0]}]}},
            {},
            r"groups of \[1\] parameters, where .* 31 without weight decay and 17",
        ),
        ({"model": {"cls_token": torch.zeros(1, 1, 16)}}, {}, r"holds no decoder .* --init FILE --init-source mae"),
    ],
)
def test_refusals(
    changes: dict[str, Any], options: dict[str, Any], said: str, config: MAEConfig, data: Path, tmp_path: Path
) -> None:
    saved(tmp_path / "checkpoint-1.pth", **changes)
    with pytest.raises(ValueError, match=said):
        pretraining.mae.task.build_task(replace(config, **options), data=data, init=None)


@pytest.mark.parametrize(
    ("table", "name"), [("position", "encoder.pos_embed"), ("decoder_position", "decoder_pos_embed")]
)
def test_a_table_that_was_not_trained_has_no_state(
    table: str, name: str, config: MAEConfig, data: Path, tmp_path: Path
) -> None:
    """The official code keeps both tables fixed, so AdamW's state holds none of them."""
    learned = replace(config, **{table: "learned"})  # type: ignore[arg-type]
    saved(tmp_path / "checkpoint-1.pth")
    with pytest.raises(ValueError, match=rf"has no state of AdamW for {name}, which its run kept fixed"):
        pretraining.mae.task.build_task(learned, data=data, init=None)
    saved(tmp_path / "checkpoint-1.pth", optimizer=None)  # a published file: AdamW starts anew
    task = pretraining.mae.task.build_task(learned, data=data, init=None)
    task.write_start(tmp_path / "run")
    assert [p.name for p in checkpoints(tmp_path / "run")] == ["step-00000000.pt"]


def test_float16_starts_with_a_scaler(config: MAEConfig, data: Path, tmp_path: Path) -> None:
    """A run in float16 restores its scaler from the checkpoint, and refuses one without."""
    half = replace(config, run=replace(config.run, precision="16-mixed"))
    for number, (scaler, scale) in enumerate([(None, 65536.0), ({}, 65536.0), (SCALER | {"scale": 8.0}, 8.0)]):
        saved(tmp_path / "checkpoint-1.pth", scaler=scaler)
        out = tmp_path / str(number)
        task = pretraining.mae.task.build_task(half, data=data, init=None)
        task.write_start(out)
        ours = build_optimizer(task.param_groups(half.run.optim), half.run.optim, peak_lr=RATE, scaled_loss=True)
        restored = GradScaler("cpu", init_scale=2.0)
        progress, problems = load_latest(
            out, Trained(model=task.model, optimizer=ours, scaler=restored), make_fabric("32-true")
        )
        assert progress is not None and problems == []
        assert restored.get_scale() == scale
