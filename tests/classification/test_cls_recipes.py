"""Recipes of classification and of pre-training from labels against their sources; options that are refused."""

import re
from dataclasses import replace
from typing import Any

import pytest

from backbones.weights.normalisation import IMAGENET
from classification.config import Augmentation, ClassificationConfig
from classification.data import train_transform
from classification.recipes import RECIPES
from engine.launch import configured
from engine.recipe import departures
from engine.spec import of_tool
from mae_transfer.tasks import TASKS
from pretraining.recipes import RECIPES as PRETRAINING


def test_recipe_of_mae_large_is_the_released_code() -> None:
    """FINETUNE.md: as ViT-B, but `--epochs 50 --blr 1e-3 --layer_decay 0.75 --drop_path 0.2`; 32 images a device."""
    base, large = RECIPES["mae_base"](), RECIPES["mae_large"]()
    assert (large.backbone.depth, large.backbone.embed_dim, large.drop_path) == (24, 1024, 0.2)
    assert (large.run.length.value, large.run.batch_size) == (50, 1024)
    assert [one.run.batch_size // 8 // one.run.accumulate for one in (base, large)] == [32, 32]
    assert large.run.optim == replace(base.run.optim, base_lr=1e-3, layer_decay=0.75)
    assert large.run.optim.lr(1024) * large.run.schedule.final == pytest.approx(1e-6)
    assert large.augment == base.augment


def test_recipe_of_mae_huge_is_the_released_code() -> None:
    """FINETUNE.md: as ViT-L with `--drop_path 0.3` and `--batch_size 16` on 64 GPUs."""
    large, huge = RECIPES["mae_large"](), RECIPES["mae_huge"]()
    assert huge.run == replace(large.run, accumulate=8) and huge.run.batch_size // 8 // 8 == 16
    assert (huge.drop_path, huge.backbone.patch_size, huge.backbone.grid) == (0.3, 14, (16, 16))


def test_linear_probes_differ_in_the_vit_alone() -> None:
    base, large, huge = (RECIPES[f"mae_{size}_linear"]() for size in ("base", "large", "huge"))
    assert huge == replace(base, backbone=huge.backbone) and huge.backbone.depth == 32
    assert large == replace(base, backbone=large.backbone) and large.backbone.depth == 24
    assert base.run.batch_size // 8 // base.run.accumulate == 512  # LINPROBE of FINETUNE.md: --batch_size 512


def test_recipes_from_labels_are_table_11() -> None:
    """MAE, appendix A.2: AdamW (0.9, 0.95), 1e-4, decay 0.3, batch 4,096, 20 epochs of warm-up; depth by size."""
    found = {name: PRETRAINING[name]() for name in ("supervised_base", "supervised_large", "supervised_huge")}
    told = [(c.backbone.embed_dim, c.run.length.value, c.drop_path) for c in found.values()]
    assert told == [(768, 300, 0.1), (1024, 200, 0.2), (1280, 200, 0.2)]
    for name, config in found.items():
        run = config.run
        assert (run.optim.base_lr, run.optim.betas, run.optim.weight_decay) == (1e-4, (0.9, 0.95), 0.3)
        assert (run.batch_size, run.schedule.warmup.value, run.ema_decay) == (4096, 20, 0.9999)
        assert any("positions stay fixed" in way for way in PRETRAINING[name].departs)


@pytest.mark.parametrize("name", sorted(name for name in RECIPES if name.startswith("mae_")))
def test_recipes_of_a_paper_state_source_and_departures(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.departs and f"tools/train_cls.py {name} " in (recipe.__doc__ or "")
    assert "% top-1 (MAE, " in (recipe.__doc__ or "") and "Not run here" in (recipe.__doc__ or "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixup": -0.1}, "mixup is -0.1; it must not be negative"),
        ({"cutmix": float("nan")}, "cutmix is nan; it must not be negative"),
        ({"erase": 1.5}, "erase is 1.5; it must be from 0"),
        ({"label_smoothing": -1.0}, "label_smoothing is -1; it must be from 0"),
        ({"randaugment": "9"}, "randaugment is '9'; write it as timm does"),
        ({"randaugment": "rand-m9.5"}, "randaugment is 'rand-m9.5'; write it as timm does"),
    ],
)
def test_augmentation_that_is_none_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Augmentation(**changes)


def test_an_empty_randaugment_is_none() -> None:
    steps = train_transform((32, 32), Augmentation(randaugment=""), IMAGENET).pixels.transforms  # type: ignore[attr-defined]
    assert [type(step).__name__ for step in steps[:3]] == ["_Crop", "RandomHorizontalFlip", "PILToTensor"]


@pytest.mark.parametrize(
    ("drop_path", "layer_decay", "message"), [(1.0, 0.5, "drop_path is 1;"), (0.1, 0.0, "layer_decay is 0;")]
)
def test_rates_outside_their_range_are_refused(
    config: ClassificationConfig, drop_path: float, layer_decay: float, message: str
) -> None:
    run = replace(config.run, optim=replace(config.run.optim, layer_decay=layer_decay))
    with pytest.raises(ValueError, match=message):
        replace(config, run=run, drop_path=drop_path)


def overridden(tool: str, name: str, *flags: str) -> Any:
    """Return the configuration that a tool trains by."""
    return configured([name, "--data", "d", "--out", "o", *flags], of_tool(TASKS, tool), doc=None)[1]


def test_flags_reach_augmentation_and_optimiser() -> None:
    flags = ("--mixup", "0", "--cutmix", "0.2", "--randaugment", "rand-m5", "--erase", "0.1", "--label-smoothing", "0")
    more = ("--layer-decay", "0.9", "--drop-path", "0.3", "--resize", "tensor", "--base-lr", "0.5")
    config = overridden("train_cls", "small", *flags, *more)
    recipe = RECIPES["small"]()
    assert config.augment == Augmentation(
        crop_scale=(0.35, 1.0), cutmix=0.2, randaugment="rand-m5", erase=0.1, label_smoothing=0.0, resize="tensor"
    )
    assert config.run.optim == replace(recipe.run.optim, base_lr=0.5, layer_decay=0.9)
    assert config == replace(recipe, run=config.run, augment=config.augment, drop_path=0.3)
    assert departures(RECIPES["small"], overridden("train_cls", "small", "--mixup", "0")) == (
        "augment.mixup: 0.4 -> 0.0",
    )
    assert overridden("train_cls", "mae_base", "--randaugment", "").augment.randaugment == ""
    assert overridden("train_cls", "small", "--max-unreadable", "0").run.max_unreadable == 0


def test_resize_is_of_the_recipes_with_random_crops() -> None:
    assert overridden("pretrain", "tiny_supervised", "--resize", "tensor").augment.resize == "tensor"
    assert overridden("pretrain", "tiny", "--resize", "tensor").resize == "tensor"
    for name in ("tiny_beit", "tiny_moco_v3", "tiny_dvae"):
        with pytest.raises(ValueError, match=f"recipe '{name}' has no use for --resize"):
            overridden("pretrain", name, "--resize", "tensor")


def test_flags_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="mixup is -1; it must not be negative"):
        overridden("train_cls", "small", "--mixup", "-1")
    with pytest.raises(ValueError, match="layer_decay is 2; it must be above 0 and at most 1"):
        overridden("train_cls", "small", "--layer-decay", "2")
    with pytest.raises(ValueError, match="max_unreadable is -1; it must not be negative"):
        overridden("train_cls", "small", "--max-unreadable", "-1")


def test_what_the_released_code_does_otherwise_is_stated() -> None:
    """MAE's util/datasets.py (crop), main_finetune.py and main_linprobe.py (drop_last), util/lars.py."""
    tuned, linear = (" ".join(RECIPES[name].departs) for name in ("mae_base", "mae_large_linear"))  # type: ignore[attr-defined]
    assert "125,100 steps of 1,024 images, where these are 125,114" in tuned and "--crop-pct 1" in tuned
    assert "7,020 steps of 16,384 images, where these are 7,038" in linear and "timm's" in linear
    assert "62,550 steps" in " ".join(RECIPES["mae_huge"].departs)  # type: ignore[attr-defined]
