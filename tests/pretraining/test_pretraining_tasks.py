"""Both pre-training tasks: their data, their picture, and the checkpoint that the other tasks read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import classification.task
import pretraining.supervised
import pretraining.task
from backbones.sources.read import read_checkpoint
from classification.config import ClassificationConfig
from engine.images import UnreadableImageError
from engine.task import InitialWeights
from pretraining.config import MAEConfig
from pretraining.data import MaskedImages
from pretraining.recipes import RECIPES


def whole(image: Image.Image) -> torch.Tensor:
    """The image as a tensor, nothing cropped."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def test_masked_images(data: Path) -> None:
    images = MaskedImages(data / "train", whole, patches=16)
    assert len(images) == 6
    assert [images.image_id(i) for i in (0, 5)] == ["cat/0.png", "dog/2.png"]
    torch.manual_seed(3)
    image, noise, image_id = images[4]
    _, other, _ = images[4]
    assert (image.shape, noise.shape, image_id) == ((3, 40, 48), (16,), "dog/1.png")
    assert not torch.equal(noise, other)  # another mask every time
    torch.manual_seed(3)
    assert torch.equal(images[4][1], noise)


def test_masked_images_need_no_classes(data: Path) -> None:
    Image.new("L", (9, 9)).save(data / "loose.TIFF", "TIFF")
    (data / "notes.txt").write_text("no image")
    images = MaskedImages(data, whole, patches=16)
    assert len(images) == 11
    assert "loose.TIFF" in {images.image_id(i) for i in range(11)}


def test_masked_images_refuse_a_bad_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent: no such folder; looked for images in it"):
        MaskedImages(tmp_path / "absent", whole, patches=16)
    (tmp_path / "empty" / "inside").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"empty: holds no image file \(\.jpg, .*\), nor do its subfolders"):
        MaskedImages(tmp_path / "empty", whole, patches=16)


def test_unreadable_image_is_named(data: Path) -> None:
    path = data / "train" / "cat" / "1.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UnreadableImageError, match=r"cat/1\.png: unreadable image"):
        MaskedImages(data / "train", whole, patches=16)[1]


def test_mae_task(mae_config: MAEConfig, data: Path, tmp_path: Path) -> None:
    task = pretraining.task.build_task(mae_config, data=data, init=None)
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
    task = pretraining.task.build_task(mae_config, data=data, init=None)
    with torch.no_grad():
        results = task.predict(task.collate([task.val_data[i] for i in (0, 2)]))
    (data / "val" / "cat" / "1.png").write_bytes(b"")
    assert task.draw(results, tmp_path)[0].is_file()


def test_mae_param_groups(mae_config: MAEConfig, data: Path) -> None:
    task = pretraining.task.build_task(mae_config, data=data, init=None)
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
        mae = pretraining.task.build_task(mae_config, data=data, init=None)
        vit, paths = mae.model.encoder, mae.finish(tmp_path / "run")
    else:
        supervised = pretraining.supervised.build_task(class_config, data=data, init=None)
        vit, paths = supervised.model.backbone, supervised.finish(tmp_path / "run")
        assert supervised.name == "supervised"
    assert [p.name for p in paths] == ["backbone.safetensors"]
    assert read_checkpoint(paths[0]).source == kind

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
        assert task.finish(tmp_path / "fine-tuned") == []
    assert any("resized pos_embed: 4x4 -> 6x4" in line for line in task.facts.weights.lines())

    # and either arm can start from the other's
    again = pretraining.task.build_task(mae_config, data=data, init=InitialWeights(path=paths[0]))
    assert again.facts.weights.source == kind
    assert not again.model.encoder.pos_embed.requires_grad
    labels = pretraining.supervised.build_task(class_config, data=data, init=InitialWeights(path=paths[0]))
    assert torch.equal(labels.model.backbone.get_parameter("norm.weight"), vit.get_parameter("norm.weight"))
    assert not labels.model.backbone.pos_embed.requires_grad  # as in the MAE arm


def test_decoder_heads_must_divide_its_width(mae_config: MAEConfig, data: Path) -> None:
    with pytest.raises(ValueError, match="a width of 12 is not divisible by 5 attention heads"):
        pretraining.task.build_task(replace(mae_config, decoder_heads=5), data=data, init=None)


def test_arms_of_the_demo_are_alike() -> None:
    mae, supervised = RECIPES["tiny"](), RECIPES["tiny_supervised"]()
    assert isinstance(mae, MAEConfig) and isinstance(supervised, ClassificationConfig)
    assert mae.backbone == supervised.backbone
    assert (mae.run.length, mae.run.batch_size) == (supervised.run.length, supervised.run.batch_size)
    assert mae.run.schedule == supervised.run.schedule
