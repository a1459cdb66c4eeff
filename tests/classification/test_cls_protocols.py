"""Linear probing and partial fine-tuning: what learns, what runs in eval mode, and how the optimiser sees it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from classification.config import ClassificationConfig
from classification.recipes import RECIPES
from classification.task import ClassificationTask, build_task
from engine.training.loop import fit
from engine.training.optim import build_optimizer


def learning(task: ClassificationTask) -> set[str]:
    """Names of what asks for a gradient; it must be what the optimiser has."""
    names = {name for name, p in task.model.named_parameters() if p.requires_grad}
    groups = [name for group in task.param_groups(task.config.run.optim) for name in group.names]
    assert sorted(groups) == sorted(names)
    return names


def of_block(task: ClassificationTask, number: int) -> set[str]:
    prefix = f"backbone.blocks.{number}."
    return {name for name, _ in task.model.named_parameters() if name.startswith(prefix)}


HEAD = {"head.weight", "head.bias"}
NORM = {"fc_norm.weight", "fc_norm.bias"}


def test_linear_trains_the_head_alone(config: ClassificationConfig, data: Path) -> None:
    task = build_task(replace(config, protocol="linear", pooling="class"), data=data, init=None)
    assert learning(task) == HEAD
    norm = task.model.fc_norm
    assert isinstance(norm, torch.nn.BatchNorm1d) and not norm.affine and norm.eps == 1e-6
    rules = {name: g.weight_decay for g in task.param_groups(config.run.optim) for name in g.names}
    assert rules == {"head.weight": 0.05, "head.bias": 0.0}


def test_linear_logits_by_hand(config: ClassificationConfig, data: Path) -> None:
    for pooling in ("class", "mean"):
        task = build_task(replace(config, protocol="linear", pooling=pooling), data=data, init=None)
        images = torch.randn(4, 3, 32, 32)
        tokens = task.model.backbone(images)
        features = tokens[:, 0] if pooling == "class" else tokens[:, 1:].mean(dim=1)
        normed = (features - features.mean(dim=0)) / (features.var(dim=0, unbiased=False) + 1e-6).sqrt()
        task.model.train()
        # float32, a sum of 16 numbers of about 1, over a std that may be 0.1
        torch.testing.assert_close(task.model.logits(images), normed @ task.model.head.weight.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("blocks", [1, 2, 0.5])
def test_partial_trains_the_last_blocks(config: ClassificationConfig, data: Path, blocks: float) -> None:
    task = build_task(replace(config, protocol="partial", tuned_blocks=blocks), data=data, init=None)
    expected = {1: of_block(task, 1), 2: of_block(task, 0) | of_block(task, 1)}.get(int(blocks), set())
    if blocks == 0.5:
        expected = {n for n in of_block(task, 1) if n.split(".")[3] in ("norm2", "mlp")}
        assert len(expected) == 6
    assert learning(task) == expected | HEAD | NORM
    scales = {g.layer: g.lr_scale for g in task.param_groups(config.run.optim)}
    assert scales[2] == 0.5 and scales[3] == 1.0  # layer decay 0.5 counts from the end, as without freezing


def test_frozen_part_stays_in_eval_mode(config: ClassificationConfig, data: Path) -> None:
    task = build_task(replace(config, protocol="partial", tuned_blocks=1, drop_path=0.5), data=data, init=None)
    task.model.train()
    vit = task.model.backbone
    assert not vit.patch_embed.training and not any(module.training for module in vit.blocks[0].modules())
    assert all(module.training for module in vit.blocks[1].modules()) and task.model.head.training
    linear = build_task(replace(config, protocol="linear", drop_path=0.5), data=data, init=None).model.train()
    assert not any(module.training for module in linear.backbone.modules()) and linear.fc_norm.training


def test_nothing_is_kept_for_the_frozen_part(config: ClassificationConfig, data: Path) -> None:
    task = build_task(replace(config, protocol="partial", tuned_blocks=1), data=data, init=None)
    kept: list[int] = []
    inner = task.model.backbone.blocks[0](torch.randn(1, 17, 16), (4, 4), None)
    assert not inner.requires_grad and inner.grad_fn is None
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        build_task(replace(config, protocol="linear"), data=data, init=None).model.backbone(torch.randn(2, 3, 32, 32))
    assert kept == []


@pytest.mark.parametrize("changes", [{"protocol": "linear"}, {"protocol": "partial", "tuned_blocks": 0.5}])
def test_training_moves_what_learns_alone(config: ClassificationConfig, data: Path, tmp_path: Path, changes) -> None:
    chosen = replace(config, **changes)
    task = build_task(chosen, data=data, init=None)
    before = {name: p.detach().clone() for name, p in task.model.named_parameters()}
    record = fit(task, chosen, recipe="test", out=tmp_path / "run")
    moved = {name for name, p in task.model.named_parameters() if not torch.equal(p, before[name])}
    assert record.status == "completed" and moved == learning(task)
    assert record.config["protocol"] == changes["protocol"]


def test_finetuning_is_as_without_protocols(config: ClassificationConfig, data: Path) -> None:
    task = build_task(config, data=data, init=None)
    assert learning(task) == {name for name, _ in task.model.named_parameters()}
    task.model.train()
    assert all(module.training for module in task.model.modules())


def test_class_token_head(config: ClassificationConfig, data: Path) -> None:
    model = build_task(replace(config, pooling="class"), data=data, init=None).model.eval()
    images = torch.randn(2, 3, 32, 32)
    expected = model.backbone(images)[:, 0] @ model.head.weight.T
    torch.testing.assert_close(model.logits(images), expected, rtol=1e-5, atol=1e-6)  # float32, sums of 16 numbers


@pytest.mark.parametrize("blocks", [0, 0.25, 1.5, 3])
def test_other_numbers_of_blocks_are_refused(config: ClassificationConfig, blocks: float) -> None:
    with pytest.raises(
        ValueError, match=rf"tuned_blocks is {blocks:g}; it must be 0.5 or a whole number from 1 to .* 2"
    ):
        replace(config, protocol="partial", tuned_blocks=blocks)


def test_recipe_of_partial_fine_tuning() -> None:
    config = RECIPES["mae_large_partial4"]()
    assert (config.protocol, config.tuned_blocks, config.backbone.depth) == ("partial", 4, 24)
    assert config.run.optim.lr(1024) == pytest.approx(4e-3)


def test_optimizer_takes_the_groups(config: ClassificationConfig, data: Path) -> None:
    task = build_task(replace(config, protocol="linear"), data=data, init=None)
    optimizer = build_optimizer(task.param_groups(config.run.optim), config.run.optim, peak_lr=0.1)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 1]


def test_what_is_frozen_costs_no_backward_pass(config: ClassificationConfig, data: Path) -> None:
    def cost(**changes: Any) -> tuple[int, int]:
        facts = build_task(replace(config, **changes), data=data, init=None).facts
        return facts.flops_per_image, facts.frozen_flops_per_image

    whole, nothing = cost(pooling="class")
    assert nothing == 0
    assert cost(protocol="linear", pooling="class") == (0, whole)
    # 4 x 4 patches of 8 px and a class token, width 16
    vit = config.backbone
    tokens, width, hidden = 17, vit.embed_dim, int(vit.mlp_ratio * vit.embed_dim)
    mlp, norm = 2 * tokens * width * hidden, 5 * tokens * width  # fvcore counts five operations a number of a norm
    learning, frozen = cost(protocol="partial", tuned_blocks=0.5, pooling="class")
    assert (learning, learning + frozen) == (mlp + 2 * norm, whole)
    block = mlp + 2 * norm + 4 * tokens * width * width + 2 * tokens * tokens * width
    assert cost(protocol="partial", tuned_blocks=1, pooling="class") == (block + norm, whole - block - norm)
