"""Pictures of features and galleries: what they show by hand, and which can be made of which file."""

import math
import tarfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

import pretraining.gallery
import pretraining.mae.task
import pretraining.moco_v3.task
from backbones.attention import Attention
from backbones.config import ViTConfig
from backbones.position import sincos_table
from backbones.vit import ViT
from backbones.weights.declaration import InitialWeights
from backbones.weights.normalisation import IMAGENET
from engine.records.record import read_record, write_record
from engine.training.loop import fit
from engine.training.resume import checkpoints
from pretraining.feature_pictures import (
    _weights,
    class_features,
    last_attention,
    nearest,
    position_caption,
    position_similarity,
)
from pretraining.gallery import Decoder, Options, Shown, make_gallery, open_any, open_file
from pretraining.mae.config import MAEConfig
from pretraining.mae.pictures import name_rows
from pretraining.moco_v3.config import MoCoConfig
from tools import reconstruct

TINY = ViTConfig(embed_dim=16, depth=2, num_heads=2, patch_size=8, image_size=(32, 48))
ALWAYS = {"masks.png", "attention.png", "neighbours.png", "positions.png"}


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Five colour images and a grey one, of several shapes, and one that cannot be read."""
    folder = tmp_path / "photographs" / "holiday"
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for number in range(5):
        pixels = torch.randint(0, 256, (40 + 8 * number, 60, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    Image.new("L", (50, 50), 90).save(folder / "grey.jpg")
    (folder / "broken.jpg").write_bytes(b"none")
    return folder.parent


@pytest.mark.parametrize("kind", ["none", "table", "shared_table", "decomposed", "rotary"])
@pytest.mark.parametrize("class_token", [True, False])
def test_attention_is_what_the_block_computes(kind: Any, class_token: bool) -> None:
    if kind == "decomposed" and class_token:
        pytest.skip("decomposed positions have no place for a class token")
    changed = {"rotary": "centred"} if kind == "rotary" else {"relative_position": kind}
    vit = ViT(replace(TINY, **changed), class_token=class_token).double()
    for parameter in vit.parameters():
        nn.init.normal_(parameter, std=0.5)
    image = torch.randn(2, 3, 32, 48, dtype=torch.float64)
    attention = vit.blocks[-1].attn
    assert isinstance(attention, Attention)
    kept: list[Tensor] = []
    attention.register_forward_hook(lambda _, given, made: kept.extend([given[0], made, given[3]]))
    vit(image)
    weight = last_attention(vit, image)
    assert weight.shape == (2, 2, 4, 6)
    # the weights, times the values, through the last layer: what the block's own kernel gave
    whole = _weights(attention, kept[0], kept[2], (4, 6), vit.rel_pos_bias)
    made = attention.proj((whole @ attention._heads(attention._project(kept[0])[0])[2]).transpose(1, 2).flatten(2))
    torch.testing.assert_close(made, kept[1], rtol=1e-9, atol=1e-12)
    rows = whole[:, :, 0, 1:] if class_token else whole.mean(dim=2)
    assert torch.equal(weight, rows.unflatten(2, (4, 6)).float())
    total = weight.sum(dim=(2, 3))
    assert bool((total < 1 + 1e-6).all())
    if not class_token:
        torch.testing.assert_close(total, torch.ones(2, 2))


def test_attention_within_windows_is_refused() -> None:
    vit = ViT(replace(TINY, window_size=2), class_token=False)
    with pytest.raises(ValueError, match="the last block attends within windows"):
        last_attention(vit, torch.randn(1, 3, 32, 48))


def test_nearest_by_hand() -> None:
    # about their mean (10, 10): right, right and a little up, up, left and down
    features = torch.tensor([[12.0, 10.0], [12.0, 11.0], [10.0, 12.0], [6.0, 7.0]])
    number, cosine = nearest(features, 2)
    assert number[:3, 0].tolist() == [1, 0, 1]
    assert cosine[0].tolist() == pytest.approx([2 / math.sqrt(5), 0.0], abs=1e-6)
    assert nearest(features, 9)[0].shape == (4, 3)  # an image is not its own neighbour


def test_features_are_class_tokens() -> None:
    image = torch.randn(40, 3, 32, 48)
    for class_token in (True, False):
        vit = ViT(TINY, class_token=class_token).eval()
        tokens = vit(image)
        expected = tokens[:, 0] if class_token else tokens.mean(dim=1)
        # two batches of float32
        torch.testing.assert_close(class_features(vit, image), expected.detach(), rtol=1e-4, atol=1e-5)


def test_positions_by_hand() -> None:
    table = torch.cat([torch.full((1, 1, 2), 9.0), torch.tensor([[[1.0, 0.0], [0.0, 3.0], [2.0, 2.0]]])], dim=1)
    similar = position_similarity(table, (1, 3), 1)
    half = 0.5**0.5
    assert similar[0, 0, 0].tolist() == pytest.approx([1.0, 0.0, half])
    assert similar[0, 2, 0].tolist() == pytest.approx([half, half, 1.0])
    fixed = position_similarity(sincos_table(16, (4, 6), 1), (4, 6), 1)
    # a sin-cos table knows distances alone: the same shift gives the same cosine
    torch.testing.assert_close(fixed[0, 0, 1, 2], fixed[2, 3, 3, 5])


@pytest.mark.parametrize("changes", [{}, {"target": "pca", "pca_components": 8}, {"target": "pixels"}])
def test_gallery_of_a_run(
    changes: dict[str, Any], mae_config: MAEConfig, data: Path, photographs: Path, tmp_path: Path
) -> None:
    config = replace(mae_config, **changes)
    task = pretraining.mae.task.build_task(config, data=data, init=None)
    fit(task, config, recipe="tiny", out=tmp_path / "run")
    shown = open_any(InitialWeights(path=tmp_path / "run"), Decoder())
    assert shown.autoencoder is not None
    for name, value in task.model.state_dict().items():
        assert torch.equal(shown.autoencoder.state_dict()[name], value), name
    options = Options(mask_ratio=0.5, sampling="block", statistics="visible", images=3)
    made = make_gallery(shown, photographs, tmp_path / "out", options)
    assert {p.name for p in made.pictures} == {"reconstructions.png"} | ALWAYS
    assert len(made.notes) == 1 and "broken.jpg: unreadable image" in made.notes[0]
    assert shown.autoencoder.kept == 8
    for path in made.pictures:
        with Image.open(path) as image:
            assert min(image.size) > 100
    again = make_gallery(shown, photographs, tmp_path / "again", options)
    assert (tmp_path / "again" / "masks.png").read_bytes() == (tmp_path / "out" / "masks.png").read_bytes()
    assert len(again.pictures) == len(made.pictures)


@pytest.mark.sweep
def test_gallery_of_shards(mae_config: MAEConfig, data: Path, photographs: Path, tmp_path: Path) -> None:
    path = tmp_path / "shards" / "holiday.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as shard:
        for image in sorted((photographs / "holiday").iterdir()):
            shard.add(image, image.name)
            shard.addfile(tarfile.TarInfo(f"{image.stem}.cls"))
    task = pretraining.mae.task.build_task(mae_config, data=data, init=None)
    task.finish(tmp_path / "run")
    shown = open_any(InitialWeights(path=tmp_path / "run" / "backbone.safetensors"), Decoder())
    (photographs / "holiday").rename(photographs / "holiday.tar")  # the names stand in the pictures
    of_files = make_gallery(shown, photographs, tmp_path / "files", Options(images=3))
    of_shards = make_gallery(shown, path.parent, tmp_path / "out", Options(images=3))
    for one, other in zip(of_files.pictures, of_shards.pictures, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert of_shards.notes[:2] == (
        "shards: 7 images in 1 tar shard(s), by shard and place in it",
        "shards: no images, left out of the shards: 7 .cls",
    )
    assert "holiday.tar/broken.jpg: unreadable image" in of_shards.notes[2]


def test_without_a_decoder(mae_config: MAEConfig, data: Path, photographs: Path, tmp_path: Path) -> None:
    config = replace(mae_config, position="none")
    task = pretraining.mae.task.build_task(config, data=data, init=None)
    task.finish(tmp_path / "run")
    path = tmp_path / "run" / "backbone.safetensors"
    made = make_gallery(open_any(InitialWeights(path=path), Decoder()), photographs, tmp_path / "out", Options())
    assert {p.name for p in made.pictures} == ALWAYS - {"positions.png"}
    assert [note for note in made.notes if not note.startswith("left out")] == [
        "reconstructions: the weights have no decoder; give a run of MAE, or a file that has one",
        "positions: the ViT has no position table",
    ]


def test_an_official_file_with_decoder(mae_config: MAEConfig, data: Path, photographs: Path, tmp_path: Path) -> None:
    task = pretraining.mae.task.build_task(mae_config, data=data, init=None)
    state = {name.removeprefix("encoder."): tensor for name, tensor in task.model.state_dict().items()}
    torch.save({"model": state}, tmp_path / "full.pth")
    declared = partial(InitialWeights, source="mae", num_heads=2)
    with pytest.raises(ValueError, match=r"full\.pth: no tensor tells .* --target pixels .* --target normalised"):
        open_file(declared(path=tmp_path / "full.pth"), Decoder(heads=3))
    with pytest.raises(
        ValueError, match=r"full\.pth: its decoder is 12 wide, which 16 .* do not divide; say --decoder-h"
    ):
        open_file(declared(path=tmp_path / "full.pth"), Decoder(target="normalised"))
    shown = open_file(declared(path=tmp_path / "full.pth"), Decoder(heads=3, target="normalised"))
    assert shown.autoencoder is not None
    image, noise = torch.randn(1, 3, 32, 32), torch.rand(1, 16)
    expected = task.model.reconstruct(image, noise).prediction_BNP
    assert torch.equal(shown.autoencoder.reconstruct(image, noise).prediction_BNP, expected)

    arguments = [str(tmp_path / "full.pth"), str(photographs), "--out", str(tmp_path / "out"), "--init-source", "mae"]
    arguments += ["--init-heads", "2", "--decoder-heads", "3", "--target", "pixels", "--count", "2"]
    assert reconstruct.main(arguments) == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"reconstructions.png"} | ALWAYS
    assert reconstruct.main([*arguments, "--mask-ratio", "1"]) == 1


@pytest.mark.sweep
def test_gallery_of_another_method(mae_config: MAEConfig, data: Path, photographs: Path, tmp_path: Path) -> None:
    config = MoCoConfig(backbone=mae_config.backbone, run=mae_config.run, hidden=24, width=8)
    task = pretraining.moco_v3.task.build_task(config, data=data, init=None)
    fit(task, config, recipe="tiny_moco_v3", out=tmp_path / "run")
    shown = open_any(InitialWeights(path=tmp_path / "run"), Decoder())
    assert shown.autoencoder is None
    made = make_gallery(shown, photographs, tmp_path / "out", Options())
    assert {p.name for p in made.pictures} == ALWAYS


def texts(figure: Figure) -> list[str]:
    """Every word of a picture that is no tick."""
    titles = [axes.get_title() for axes in figure.axes]
    beside = [text.get_text() for axes in figure.axes for text in axes.texts]
    return [*titles, *beside, figure.get_suptitle()]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The words of every picture that is written, by the name of its file."""
    kept: dict[str, list[str]] = {}
    save = Figure.savefig

    def watched(self: Figure, path: Path, **options: Any) -> None:
        kept[next(name for name in {"reconstructions.png"} | ALWAYS if name in Path(path).name)] = texts(self)
        save(self, path, **options)

    monkeypatch.setattr(Figure, "savefig", watched)
    return kept


def test_pictures_say_what_they_show(
    mae_config: MAEConfig, data: Path, photographs: Path, tmp_path: Path, drawn: dict[str, list[str]]
) -> None:
    task = pretraining.mae.task.build_task(mae_config, data=data, init=None)
    shown = Shown(task.model.encoder, task.model, IMAGENET)
    made = make_gallery(shown, photographs, tmp_path / "out", Options(mask_ratio=0.6, images=2))
    assert len(made.pictures) == 5
    names = ["holiday/0.png", "holiday/3.png"]  # of the six that can be read
    for name in ("reconstructions.png", "masks.png", "attention.png", "neighbours.png"):
        assert [text for text in drawn[name] if "/" in text] == names, name
    # 60 % of 16 patches leave 6 whole ones: 10 of 16 are hidden, and both pictures say so
    assert "62% masked" in drawn["reconstructions.png"]
    assert {"random, 62%", "block, 62%", "grid, 62%"} <= set(drawn["masks.png"])
    assert "nothing here is learned" in drawn["positions.png"][-1]


def test_learned_positions_are_not_called_fixed() -> None:
    fixed, learned = sincos_table(16, (4, 6), 1), torch.randn(1, 25, 16)
    assert "fixed table" in position_caption(fixed, (4, 6), 1)
    assert "fixed table" not in position_caption(learned, (4, 6), 1)
    assert "fixed table" not in position_caption(torch.randn(1, 25, 6), (4, 6), 1)  # no such table has 6 columns


def test_names_beside_rows() -> None:
    figure = Figure()
    cells = figure.subplots(3, 1, squeeze=False)
    name_rows(cells, ["a $b$.png", "\u5c71.png", "0123456789" * 4])
    assert [axes.texts[0].get_text() for axes in cells[:, 0]] == [
        r"a \$b\$.png",
        "?.png",
        "...5678901234567890123456789",
    ]
    figure.draw_without_rendering()  # a lone dollar is no formula
    name_rows(cells, [])
    assert [len(axes.texts) for axes in cells[:, 0]] == [1, 1, 1]


def test_one_image_and_many(mae_config: MAEConfig, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = pretraining.mae.task.build_task(mae_config, data=data, init=None)
    shown = Shown(task.model.encoder, None, IMAGENET)
    alone = tmp_path / "alone"
    alone.mkdir()
    Image.new("RGB", (40, 40)).save(alone / "one.png")
    made = make_gallery(shown, alone, tmp_path / "out", Options())
    assert "neighbours: there is one image alone" in made.notes
    assert "neighbours.png" not in {path.name for path in made.pictures}
    monkeypatch.setattr(pretraining.gallery, "SEARCHED", 4)
    made = make_gallery(shown, data / "train", tmp_path / "few", Options())
    assert "4 of 6 images, evenly spaced in the folder, are read and searched for neighbours" in made.notes


def test_refused_folders_and_counts(
    mae_config: MAEConfig, data: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", str(tmp_path / "out")
    task = pretraining.mae.task.build_task(mae_config, data=data, init=None)
    fit(task, mae_config, recipe="tiny", out=run)

    def refused(*arguments: object) -> str:
        capsys.readouterr()
        assert reconstruct.main([*map(str, arguments), "--out", out]) == 1
        return capsys.readouterr().err

    assert "--count is 0; at least 1 image is drawn" in refused(run, photographs, "--count", 0)
    assert "--count is -3" in refused(run, photographs, "--count", -3)
    image = photographs / "holiday" / "0.png"
    assert f"{image}: is a file, and a folder of images is needed, such as {image.parent}" in refused(run, image)
    assert f"would be written into {tmp_path}, which is read; give another --out" in refused(run, tmp_path)
    assert f"{run}: is a run, which knows its weights" in refused(run, photographs, "--target", "pixels")
    assert f"{photographs}: holds no record.json, so it is no run" in refused(photographs, photographs)
    checkpoint = checkpoints(run)[-1]
    assert f"{checkpoint}: is a checkpoint of the run {run}; give that folder" in refused(checkpoint, photographs)
    assert not Path(out).exists()
    record = replace(read_record(run), task="dvae")
    (tmp_path / "dvae").mkdir()
    write_record(tmp_path / "dvae", record)
    said = refused(tmp_path / "dvae", photographs)
    assert "backbone.safetensors: no such file" in said and "this one is of dvae (completed at step 2 of 2)" in said
