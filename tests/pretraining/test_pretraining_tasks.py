"""Both pre-training tasks: their data, their picture, and the checkpoint that the other tasks read."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import classification.task
import pretraining.mae.task
import pretraining.supervised
from backbones.config import Position
from backbones.normalise import Normalise, View
from backbones.weights.declaration import InitialWeights
from backbones.weights.normalisation import IMAGENET, Normalisation
from backbones.weights.read import read_checkpoint
from classification.config import ClassificationConfig
from engine.images.reading import UnreadableImageError, open_images
from engine.launch import configured
from engine.records.record import read_record
from engine.spec import of_tool
from engine.training.loop import fit
from engine.training.resume import checkpoints, load_model
from mae_transfer.tasks import TASKS
from pretraining.augment import training_view
from pretraining.data import MaskedImages
from pretraining.mae.config import MAEConfig, Views
from pretraining.mae.target import PCATarget
from pretraining.recipes import RECIPES
from scenes.layouts import ScenesIndex
from tools import pretrain

# nothing cropped
whole = View(lambda image: torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1), Normalise(IMAGENET))


def noise() -> torch.Tensor:
    return torch.rand(16)


def test_masked_images(data: Path) -> None:
    images = MaskedImages(open_images(data / "train"), whole, noise=noise)
    assert len(images) == 6
    assert [images.image_id(i) for i in (0, 5)] == ["cat/0.png", "dog/2.png"]
    torch.manual_seed(3)
    image, drawn, image_id = images[4]
    _, other, _ = images[4]
    assert (image.shape, drawn.shape, image_id) == ((1, 3, 40, 48), (1, 16), "dog/1.png")
    assert not torch.equal(drawn, other)  # another mask every time
    torch.manual_seed(3)
    assert torch.equal(images[4][1], drawn)


def test_repeated_sampling(mae_config: MAEConfig, data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = pretraining.mae.task.build_task(replace(mae_config, repeats=3), data=data, init=None)
    views, drawn, _ = task.train_data[0]
    assert (views.shape, drawn.shape) == ((3, 3, 32, 32), (3, 16))
    for a, b in ((0, 1), (1, 2)):  # every view has its own crop and mask
        assert not torch.equal(views[a], views[b]) and not torch.equal(drawn[a], drawn[b])
    images, masks, ids = task.collate([task.train_data[0], task.train_data[1]])
    assert (images.shape[0], masks.shape[0], ids) == (6, 6, ["cat/0.png", "cat/1.png"])
    assert task.val_data[0][0].shape == (1, 3, 32, 32)
    assert task.facts.data_notes == ("3 crops of every loaded image: a step trains on as many times its batch",)
    config = replace(mae_config, repeats=3)
    record = fit(task, config, recipe="tiny", out=tmp_path / "run")
    assert (record.status, record.samples_seen) == ("completed", 24)  # two steps of four images, each three crops


def test_masked_images_need_no_classes(data: Path) -> None:
    Image.new("L", (9, 9)).save(data / "loose.TIFF", "TIFF")
    (data / "notes.txt").write_text("no image")
    images = MaskedImages(open_images(data), whole, noise=noise)
    assert len(images) == 11
    assert "loose.TIFF" in {images.image_id(i) for i in range(11)}


def test_masked_images_refuse_a_bad_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent: no such folder; looked for images in it"):
        MaskedImages(open_images(tmp_path / "absent"), whole, noise=noise)
    (tmp_path / "empty" / "inside").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"empty: holds no image file \(\.jpg, .*\), nor do its subfolders"):
        MaskedImages(open_images(tmp_path / "empty"), whole, noise=noise)


def test_unreadable_image_is_named(data: Path) -> None:
    path = data / "train" / "cat" / "1.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UnreadableImageError, match=r"cat/1\.png: unreadable image"):
        MaskedImages(open_images(data / "train"), whole, noise=noise)[1]


def test_mae_task(mae_config: MAEConfig, data: Path, tmp_path: Path) -> None:
    task = pretraining.mae.task.build_task(mae_config, data=data, init=None)
    assert (task.facts.train_images, task.facts.val_images, task.facts.weights.source) == (6, 4, "random")
    assert task.facts.flops_per_image
    batch = task.collate([task.val_data[i] for i in range(4)])
    assert [tuple(t.shape) for t in batch[:2]] == [(4, 3, 32, 32), (4, 16)]
    with torch.no_grad():
        results = task.predict(batch)
        total = task.model(batch)["reconstruction"].item()
    assert [r.image_id for r in results] == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]
    # the mean of four float32 numbers in two orders
    assert task.score(results) == {"val_loss": pytest.approx(total, rel=1e-6)}
    with pytest.raises(ValueError, match=r"data: no image of split val could be evaluated"):
        task.score([])

    (picture,) = task.draw(results, tmp_path / "pictures")
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert image.height > image.width  # four rows of three
    assert [p.name for p in picture.parent.iterdir()] == ["reconstructions.png"]


def test_picture_leaves_out_unreadable_images(mae_config: MAEConfig, data: Path, tmp_path: Path) -> None:
    task = pretraining.mae.task.build_task(mae_config, data=data, init=None)
    with torch.no_grad():
        results = task.predict(task.collate([task.val_data[i] for i in (0, 2)]))
    (data / "val" / "cat" / "1.png").write_bytes(b"")
    assert task.draw(results, tmp_path)[0].is_file()


def test_mae_param_groups(mae_config: MAEConfig, data: Path) -> None:
    task = pretraining.mae.task.build_task(mae_config, data=data, init=None)
    groups = task.param_groups(replace(mae_config.run.optim, weight_decay=0.05))
    decay = {name: group.weight_decay for group in groups for name in group.names}
    assert set(decay) == {name for name, p in task.model.named_parameters() if p.requires_grad}
    # pre-training decays class and mask token: only biases and norms are exempt
    assert decay["mask_token"] == decay["encoder.cls_token"] == decay["decoder_pred.weight"] == 0.05
    assert decay["decoder_norm.weight"] == decay["encoder.patch_embed.proj.bias"] == 0.0
    assert {group.lr_scale for group in groups} == {1.0}


@pytest.mark.parametrize("kind", ["mae", "supervised"])
def test_ends_in_a_checkpoint_that_classification_reads(
    kind: str, mae_config: MAEConfig, class_config: ClassificationConfig, data: Path, tmp_path: Path
) -> None:
    if kind == "mae":
        mae = pretraining.mae.task.build_task(mae_config, data=data, init=None)
        vit, paths = mae.model.encoder, mae.finish(tmp_path / "run")
    else:
        supervised = pretraining.supervised.build_task(class_config, data=data, init=None)
        vit, paths = supervised.model.backbone, supervised.finish(tmp_path / "run")
        assert supervised.name == "supervised"
    assert [p.name for p in paths] == ["backbone.safetensors"]
    assert read_checkpoint(InitialWeights(path=paths[0])).source == kind

    wide = replace(class_config, backbone=class_config.backbone.at(48, 32))
    for config in (class_config, wide):
        task = classification.task.build_task(config, data=data, init=InitialWeights(path=paths[0]))
        assert (task.facts.weights.source, task.facts.weights.path) == (kind, str(paths[0]))
        dropped = [line for line in task.facts.weights.lines() if "dropped" in line]
        assert dropped == ["  dropped 2 tensors: the task's ViT has none (norm.bias, norm.weight)"]
        loaded = dict(task.model.backbone.named_parameters())
        for name, parameter in vit.named_parameters():
            if not name.startswith("norm.") and (name != "pos_embed" or config is class_config):
                assert torch.equal(loaded[name], parameter), name
        (left,) = task.finish(tmp_path / "fine-tuned")
        assert read_checkpoint(InitialWeights(path=left)).source == f"{kind}+classification"
    assert any("resized pos_embed: 4x4 -> 6x4" in line for line in task.facts.weights.lines())

    # and either arm can start from the other's
    again = pretraining.mae.task.build_task(mae_config, data=data, init=InitialWeights(path=paths[0]))
    assert again.facts.weights.source == kind
    assert not again.model.encoder.pos_embed.requires_grad
    labels = pretraining.supervised.build_task(class_config, data=data, init=InitialWeights(path=paths[0]))
    assert torch.equal(labels.model.backbone.get_parameter("norm.weight"), vit.get_parameter("norm.weight"))
    assert not labels.model.backbone.pos_embed.requires_grad  # as in the MAE arm


def test_a_pca_target_needs_an_image(mae_config: MAEConfig, data: Path) -> None:
    for path in (data / "train").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"none of the \d+ images that the target is fitted on can be read; the last: "
    ):
        pretraining.mae.task.build_task(replace(mae_config, target="pca", pca_components=10), data=data, init=None)


def test_pca_target_is_fitted_and_saved(mae_config: MAEConfig, data: Path, tmp_path: Path) -> None:
    (data / "train" / "cat" / "2.png").write_bytes(b"broken")
    config = replace(mae_config, target="pca", pca_components=10)
    task = pretraining.mae.task.build_task(config, data=data, init=None)
    target = task.model.target
    assert isinstance(target, PCATarget) and target.components.shape == (10, 192)
    (note,) = task.facts.data_notes
    assert re.fullmatch(
        r"target: 10 of 192 PCA coefficients, \d\d\.\d% of the variance of the patches of 5 training images, "
        r"1 unreadable ones left out \(.*cat/2\.png\)",
        note,
    )
    assert task.model.decoder_pred.out_features == 10
    assert torch.equal(task.model.state_dict()["target.mean"], target.mean)
    record = fit(task, config, recipe="tiny", out=tmp_path / "run")
    assert record.status == "completed"
    # other images: what was fitted comes from the checkpoint
    other = pretraining.mae.task.build_task(config, data=data.rename(tmp_path / "same"), init=None)
    other.model.target.mean.zero_()
    load_model(checkpoints(tmp_path / "run")[-1], other.model)
    assert torch.equal(other.model.target.mean, target.mean)


def test_augmentation_by_hand(mae_config: MAEConfig, data: Path) -> None:
    def views(kind: Views) -> MaskedImages:
        return pretraining.mae.task.build_task(replace(mae_config, augmentation=kind), data=data, init=None).train_data

    assert torch.equal(views("none").view_of(0), views("none").view_of(0))
    # 40 x 48 resized to a shorter side of 36, of which 32 is taken: 5 places down, 12 across, flipped or not
    torch.manual_seed(0)
    fixed = views("fixed_crop")
    crops = {fixed.view_of(0).numpy().tobytes() for _ in range(1500)}
    assert len(crops) == 5 * 12 * 2
    jittered, plain = views("color_jitter"), views("random_crop")
    torch.manual_seed(0)
    assert not torch.equal(jittered.view_of(0), plain.view_of(0))
    assert jittered.view_of(0).shape == (3, 32, 32)


@pytest.mark.parametrize("kind", ["none", "fixed_crop", "color_jitter"])
def test_views_are_normalised(kind: Views) -> None:
    grey = Image.new("RGB", (40, 40), (124, 124, 124))
    normalisation = Normalisation((0.4, 0.5, 0.6), (0.1, 0.2, 0.3))
    view = training_view(kind, (32, 32), normalisation, scale=(0.2, 1.0), flip=True)(grey)
    expected = (torch.full((3,), 124 / 255) - torch.tensor([0.4, 0.5, 0.6])) / torch.tensor([0.1, 0.2, 0.3])
    if kind != "color_jitter":
        torch.testing.assert_close(view.mean(dim=(1, 2)), expected)  # float32 means
    assert view.dtype == torch.float32


@pytest.mark.parametrize("position", ["none", "learned"])
def test_positions(position: Position, mae_config: MAEConfig, data: Path, tmp_path: Path) -> None:
    config = replace(mae_config, position=position, decoder_position="learned")
    task = pretraining.mae.task.build_task(config, data=data, init=None)
    assert task.facts.architecture["position"] == position
    trained = {name for group in task.param_groups(config.run.optim) for name in group.names}
    assert "decoder_pos_embed" in trained
    assert ("encoder.pos_embed" in trained) == (position == "learned")
    fit(task, config, recipe="tiny", out=tmp_path / "run")
    checkpoint = read_checkpoint(InitialWeights(path=tmp_path / "run" / "backbone.safetensors"))
    assert checkpoint.architecture.position == position
    assert ("pos_embed" in checkpoint.state) == (position == "learned")


def test_config_refuses(mae_config: MAEConfig) -> None:
    with pytest.raises(ValueError, match="repeats is 0; it must be at least 1"):
        replace(mae_config, repeats=0)
    with pytest.raises(ValueError, match=r"crop_scale is 0 1; it is the least and the largest share of the area"):
        replace(mae_config, crop_scale=(0.0, 1.0))


FLAGS_OF_METHODS: dict[str, dict[str, Any]] = {
    "tiny": {"crop_scale": (0.3, 0.9), "flip": False, "mask_ratio": 0.5},
    "tiny_beit": {
        "crop_scale": (0.3, 0.9),
        "flip": False,
        "masked_patches": 20,
        "token_size": (64, 64),
        "min_block": 4,
        "color_jitter": 0.3,
        "drop_path": 0.2,
    },
    "tiny_dvae": {"crop_scale": (0.3, 0.9), "flip": False, "vocabulary": 64},
    "tiny_moco_v3": {
        "crop_scale": (0.3, 0.9),
        "changes": "crop",
        "momentum": 0.9,
        "temperature": 0.1,
        "freeze_patches": False,
    },
    "tiny_supervised": {"crop_scale": (0.3, 0.9), "flip": False, "drop_path": 0.2},
}


def given(recipe: str, flags: dict[str, Any]) -> Any:
    texts: list[str] = []
    for name, value in flags.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            texts.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            texts += [f"--{flag}", *map(str, value if isinstance(value, tuple) else [value])]
    return configured([recipe, "--data", "d", "--out", "o", *texts], of_tool(TASKS, "pretrain"), doc=None)[1]


@pytest.mark.parametrize(("recipe", "flags"), FLAGS_OF_METHODS.items())
def test_flags_of_every_method(recipe: str, flags: dict[str, Any]) -> None:
    config = given(recipe, flags)
    holders = [config, getattr(config, "augment", None)]
    for name, value in flags.items():
        (found,) = (getattr(holder, name) for holder in holders if hasattr(holder, name))
        assert found == value


@pytest.mark.parametrize(
    ("recipe", "flags", "said"),
    [
        ("tiny", {"momentum": 0.9, "changes": "crop"}, "recipe 'tiny' has no use for --changes, --momentum"),
        ("tiny_moco_v3", {"flip": False}, "recipe 'tiny_moco_v3' has no use for --no-flip"),
        ("tiny", {"pca_components": 20}, "pca_components 20 has no effect .*: it needs target pca"),
        ("tiny", {"augmentation": "fixed_crop", "crop_scale": (0.3, 1.0)}, "it needs a crop of random scale"),
        ("tiny", {"augmentation": "none", "flip": False}, "flip False has no effect .* it needs an augmentation"),
        ("tiny_beit", {"drop_path": 1.0}, "drop_path is 1; it must be at least 0"),
        ("tiny_beit", {"color_jitter": -0.1}, "color_jitter is -0.1; it must not be negative"),
        ("tiny_beit", {"masked_patches": 65}, "65"),
        ("tiny_dvae", {"crop_scale": (0.5, 1.5)}, "crop_scale is 0.5 1.5"),
        ("tiny_supervised", {"crop_scale": (0.9, 0.2)}, "crop_scale is 0.9 0.2"),
    ],
)
def test_flags_of_another_method_or_out_of_range(recipe: str, flags: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        given(recipe, flags)


def test_decoder_heads_must_divide_its_width(mae_config: MAEConfig) -> None:
    with pytest.raises(ValueError, match="decoder_dim 12 is not divisible by decoder_heads 5; change one"):
        replace(mae_config, decoder_heads=5)


def test_tiny_recipes_are_alike() -> None:
    mae, supervised = RECIPES["tiny"](), RECIPES["tiny_supervised"]()
    assert isinstance(mae, MAEConfig) and isinstance(supervised, ClassificationConfig)
    assert mae.backbone == supervised.backbone
    assert (mae.run.length, mae.run.batch_size) == (supervised.run.length, supervised.run.batch_size)
    assert mae.run.schedule == supervised.run.schedule


def test_every_choice_is_a_flag(few_scenes: ScenesIndex, tmp_path: Path) -> None:
    choices = {
        "mask-ratio": 0.5,
        "sampling": "block",
        "mask-token": "encoder",
        "position": "learned",
        "decoder-position": "learned",
        "decoder-dim": 24,
        "decoder-depth": 1,
        "decoder-heads": 2,
        "target": "pca",
        "pca-components": 16,
        "loss-on": "all",
        "augmentation": "color_jitter",
        "repeats": 2,
    }
    flags = [text for name, value in choices.items() for text in (f"--{name}", str(value))]
    out = tmp_path / "run"
    arguments = ["tiny", "--data", str(few_scenes.imagenet), "--out", str(out), "--steps", "1", "--batch-size", "4"]
    assert pretrain.main([*arguments, *flags]) == 0
    record = read_record(out)
    assert {name: record.config[name.replace("-", "_")] for name in choices} == choices
    changed = {line.partition(":")[0] for line in record.departures}
    assert {name.replace("-", "_") for name in choices} <= changed
    assert {Path(name).name for name in record.pictures} >= {"reconstructions.png"}
