"""Probes of cached features: features against the ViT's own tokens, k-NN by hand, the sweep against PyTorch's SGD."""

import fcntl
import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from backbones.config import ViTConfig
from backbones.normalise import View
from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from backbones.weights.declaration import InitialWeights
from backbones.weights.normalisation import Normalisation
from classification.data import LabelledImages, eval_transform, open_split
from classification.probe.features import Features, cache_key, cached_features, every_depth
from classification.probe.knn import nearest_classes
from classification.probe.linear_sweep import _train, sweep
from classification.probe.run import ProbeConfig, run_probes
from engine.device import make_fabric
from engine.records.record import read_record
from engine.records.results_file import read_results
from tools import probe

TINY = ViTConfig(embed_dim=16, depth=2, num_heads=2, patch_size=8, image_size=(32, 32))


def images_of(data: Path, split: str = "train") -> LabelledImages:
    return LabelledImages(open_split(data, split)[0], eval_transform((32, 32), 224 / 256, Normalisation()))


def test_every_depth_is_the_network_cut_off_there() -> None:
    vit, images = ViT(TINY).eval(), torch.randn(3, 3, 32, 32)
    made = every_depth(vit, images)
    assert made.shape == (2, 2, 3, 16)
    for depth in (1, 2):
        cut = ViT(ViTConfig(embed_dim=16, depth=depth, num_heads=2, patch_size=8, image_size=(32, 32))).eval()
        cut.load_state_dict({name: t for name, t in vit.state_dict().items() if name in cut.state_dict()})
        tokens = cut(images)
        assert torch.equal(made[0, depth - 1], tokens[:, 0])
        assert torch.equal(made[1, depth - 1], tokens[:, 1:].mean(dim=1))
    assert not any(block._forward_hooks for block in vit.blocks)


def test_features_are_cached_and_followed(data: Path, tmp_path: Path) -> None:
    vit, fabric = ViT(TINY).eval(), make_fabric("32-true")
    images = images_of(data)
    key = cache_key("w", images, "t", "32-true")
    first = cached_features(tmp_path / key, vit, images, fabric=fabric, batch_size=4, workers=0)
    batch = torch.stack([images[i][0] for i in range(6)])
    with torch.no_grad():
        expected = vit(images.view.normalise(batch))[:, 0]
    torch.testing.assert_close(first.of(2, "class"), expected, rtol=2**-11, atol=1e-4)  # float16
    assert first.label_N.tolist() == [0, 0, 1, 1, 2, 2]
    vit.norm.weight.data.zero_()  # a second extraction would be all zeros
    second = cached_features(tmp_path / key, vit, images, fabric=fabric, batch_size=4, workers=0)
    assert torch.equal(second.of(2, "class"), first.of(2, "class"))
    assert cache_key("w", images_of(data), "t", "32-true") == key
    others = [("v", "t", "32-true"), ("w", "u", "32-true"), ("w", "t", "bf16-mixed")]
    assert key not in {cache_key(w, images, t, precision) for w, t, precision in others}
    os.utime(data / "train" / "ant" / "0.png", (1, 1))
    assert cache_key("w", images, "t", "32-true") != key


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_features_that_float16_cannot_hold_are_refused(value: float, data: Path, tmp_path: Path) -> None:
    vit, fabric = ViT(TINY).eval(), make_fabric("32-true")
    vit.norm.bias.data.fill_(value)
    with pytest.raises(ValueError, match=r"what follows: features beyond the range of float16, or not numbers"):
        cached_features(tmp_path / "key", vit, images_of(data), fabric=fabric, batch_size=4, workers=0)
    assert not (tmp_path / "key" / "features.npy").exists()


def test_without_a_class_token_the_mean_alone_is_kept(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """I-JEPA's weights and SigLIP's: token 0 is a patch there and no class token."""
    torch.manual_seed(0)
    vit = ViT(TINY, class_token=False).eval()
    tokens = vit(images := torch.randn(3, 3, 32, 32))
    assert torch.equal(every_depth(vit, images)[:, -1], tokens.mean(dim=1)[None])
    write_checkpoint(tmp_path / "gap.safetensors", vit, source="timm")
    flags = ["--data", str(data), "--init", str(tmp_path / "gap.safetensors"), "--init-architecture", "file"]
    flags += ["--image-size", "32", "32", "--linear-epochs", "1", "--device", "cpu"]
    assert probe.main(["vit_demo_patch8", *flags, "--pooling", "mean", "--out", str(tmp_path / "out")]) == 0
    record = read_record(tmp_path / "out" / "knn")
    assert record.config["class_token"] is False and record.metrics["top1"] == record.metrics["depth02_mean_k20"]
    assert not [name for name in record.metrics if "class" in name]
    capsys.readouterr()
    assert probe.main(["vit_demo_patch8", *flags, "--out", str(tmp_path / "no")]) == 1
    assert "the file has no class token, which this task's ViT needs; a head on the mean" in capsys.readouterr().err


def test_unreadable_images_are_left_out(data: Path, tmp_path: Path) -> None:
    (data / "train" / "bee" / "0.png").write_bytes(b"")
    made = cached_features(
        tmp_path / "f", ViT(TINY).eval(), images_of(data), fabric=make_fabric("32-true"), batch_size=4, workers=0
    )
    assert made.label_N.tolist() == [0, 0, 1, 2, 2] and made.of(1, "mean").shape == (5, 16)
    assert made.image_ids[2] == "bee/1.png" and "bee/0.png: unreadable image" in made.unreadable[0]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_a_readable_image_is_refused_first(data: Path, tmp_path: Path, split: str) -> None:
    for path in (data / split).rglob("*.png"):
        path.write_bytes(b"")
    config, said = ProbeConfig(backbone=TINY), []
    with pytest.raises(
        ValueError, match=rf"{split}: none of its \d images can be read; the first: .*ant/0\.png: unread"
    ):
        run_probes(config, data=data, init=None, out=tmp_path / "out", cache=tmp_path / "cache", say=said.append)
    assert not said and not (tmp_path / "cache").exists()


def test_a_stopped_extraction_is_not_taken_for_whole(data: Path, tmp_path: Path) -> None:
    images, fabric, vit = images_of(data), make_fabric("32-true"), ViT(TINY).eval()
    whole = images.view
    images.view = View(lambda image: (_ for _ in ()).throw(KeyboardInterrupt()), whole.normalise)
    with pytest.raises(KeyboardInterrupt):
        cached_features(tmp_path / "f", vit, images, fabric=fabric, batch_size=4, workers=0)
    assert [path.name for path in (tmp_path / "f").iterdir()] == [".lock"]
    images.view = whole
    made = cached_features(tmp_path / "f", vit, images, fabric=fabric, batch_size=4, workers=0)
    assert len(made.label_N) == 6


def test_features_that_another_process_extracts_are_waited_for(data: Path, tmp_path: Path) -> None:
    vit, fabric, folder = ViT(TINY).eval(), make_fabric("32-true"), tmp_path / "key"
    first = cached_features(folder, vit, images_of(data), fabric=fabric, batch_size=4, workers=0)
    there = (folder / "images.json").rename(folder / "elsewhere.json")  # as while they are extracted
    vit.norm.weight.data.zero_()  # a second extraction would be all zeros
    found: list[Features] = []

    def ask() -> None:
        found.append(cached_features(folder, vit, images_of(data), fabric=fabric, batch_size=4, workers=0))

    asking = threading.Thread(target=ask)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        asking.start()
        asking.join(0.3)
        assert asking.is_alive() and not found
        there.rename(folder / "images.json")
    asking.join(30)
    assert torch.equal(found[0].of(2, "class"), first.of(2, "class"))


def test_neighbours_by_hand() -> None:
    angles = torch.tensor([0.0, 5.0, 10.0, 80.0, 90.0]).deg2rad()
    train = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.tensor([[1.0], [7.0], [0.1], [2.0], [3.0]])
    labels = torch.tensor([0, 1, 1, 2, 2])
    query = torch.tensor([[1.0, 0.0]])  # lengths do not count
    found = nearest_classes(train, labels, query, classes=3, neighbours=(1, 3, 50))
    assert found[1][0, 0] == 0
    # weights exp(cos / 0.07): class 0 1.6e6, class 1 1.5e6 + 1.3e6
    assert found[3][0].tolist()[:2] == [1, 0]
    assert found[50][0].tolist() == [1, 0, 2]


def test_neighbours_equal_dino() -> None:
    """The vote as eval_knn.py of DINO writes it: one-hot retrieved labels times exp(similarity / T), summed."""
    generator = torch.Generator().manual_seed(0)
    train, query = torch.randn(300, 8, generator=generator), torch.randn(20, 8, generator=generator)
    labels = torch.randint(0, 6, (300,), generator=generator)
    found = nearest_classes(train, labels, query, classes=6)
    distances, indices = (F.normalize(query, dim=1) @ F.normalize(train, dim=1).T).topk(200, largest=True, sorted=True)
    for k in (10, 20, 100, 200):
        one_hot = F.one_hot(labels[indices[:, :k]], 6).float()
        votes = (one_hot * distances[:, :k].div(0.07).exp()[:, :, None]).sum(dim=1)
        ordered, classes = votes.sort(dim=1, descending=True)
        assert torch.equal(found[k][:, 0], classes[:, 0])
        # by votes and not by class: classes without a vote are equal; float32 sums in two orders
        torch.testing.assert_close(votes.gather(1, found[k]), ordered[:, :5], rtol=1e-5, atol=0)


def test_sweep_is_sgd_by_pytorch() -> None:
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.randn(40, 6, generator=generator), torch.randint(0, 3, (40,), generator=generator)
    lrs = torch.tensor([0.1, 1.0])
    weight, bias = _train(
        x, labels, peak_L=lrs, classes=3, epochs=3, batch=16, generator=torch.Generator().manual_seed(5)
    )
    for number, lr in enumerate(lrs.tolist()):
        order = torch.Generator().manual_seed(5)
        layer = torch.nn.Linear(6, 3)
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        sgd = torch.optim.SGD(layer.parameters(), lr=lr, momentum=0.9)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, T_max=6)
        for _ in range(3):
            permutation = torch.randperm(40, generator=order)
            for start in (0, 16):
                chosen = permutation[start : start + 16]
                sgd.zero_grad()
                F.cross_entropy(layer(x[chosen]), labels[chosen]).backward()
                sgd.step()
                cosine.step()
        # float32, six steps
        torch.testing.assert_close(weight[number], layer.weight.detach().T, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(bias[number, 0], layer.bias.detach(), rtol=1e-4, atol=1e-5)


def test_sweep_separates_what_is_separable() -> None:
    generator = torch.Generator().manual_seed(1)
    centres = 1000 * torch.randn(4, 8, generator=generator)  # of any scale: features are standardised
    labels = torch.arange(4).repeat(100)
    x = centres[labels] + 50 * torch.randn(400, 8, generator=generator)
    found = sweep(x[:200], labels[:200], x[200:], labels[200:], classes=4, epochs=20)
    assert found.top1[found.chosen] == 100.0 and len(found.top1) == len(found.lrs)
    assert found.held_out_top1[found.chosen] == max(found.held_out_top1)
    assert found.predictions_VK.shape == (200, 4) and torch.equal(found.predictions_VK[:, 0], labels[200:])
    with pytest.raises(ValueError, match="1 training images: a learning rate cannot be chosen"):
        sweep(x[:1], labels[:1], x[1:], labels[1:], classes=4)


def test_rates_are_chosen_without_the_validation_images() -> None:
    generator = torch.Generator().manual_seed(1)
    x, labels = torch.randn(60, 4, generator=generator), torch.arange(3).repeat(20)
    one, other = (sweep(x, labels, x, wrong, classes=3, epochs=5) for wrong in (labels, (labels + 1) % 3))
    assert one.chosen == other.chosen and one.held_out_top1 == other.held_out_top1
    assert one.top1 != other.top1


@pytest.fixture
def coloured(tmp_path: Path) -> Path:
    """Three classes by colour, which features of random weights tell apart."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for label, name in enumerate(("ant", "bee", "cow")):
            folder = tmp_path / "coloured" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise = rng.integers(0, 90, (40, 48, 3), dtype=np.uint8)
                noise[..., label] += 150
                Image.fromarray(noise).save(folder / f"{number}.png")
    return tmp_path / "coloured"


def test_records(coloured: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "b.safetensors", ViT(TINY), source="mae")
    said: list[str] = []
    config = ProbeConfig(backbone=TINY, pooling="mean", linear_epochs=30)
    init = InitialWeights(path=tmp_path / "b.safetensors")
    out = tmp_path / "out"
    run_probes(config, data=coloured, init=init, out=out, cache=out / "features", say=said.append)
    neighbours, linear = read_record(out / "knn"), read_record(out / "linear_features")
    assert (neighbours.task, linear.task, neighbours.weights_source) == ("knn", "linear_features", "mae")
    assert neighbours.metrics["top1"] == neighbours.metrics["depth02_mean_k20"]
    assert linear.metrics["top1"] == linear.metrics["depth02_mean"] == 100.0
    assert len(neighbours.metrics) == 2 + 2 * 2 * 4 and len(linear.metrics) == 2 + 2 * 2
    assert neighbours.config["leading"] == "depth02_mean_k20" and neighbours.run_id != linear.run_id
    results = read_results(out / "knn" / "results.jsonl")
    assert len(results) == 12 and results[0].image_id == "ant/0.png"
    assert sum("chosen" in line for line in said) == 1
    with pytest.raises(ValueError, match="knn: holds a probe already; give another --out"):
        run_probes(config, data=coloured, init=init, out=out, cache=out / "features", say=said.append)


def test_two_networks_of_one_file_have_features_of_their_own(coloured: Path, tmp_path: Path) -> None:
    path, cache = tmp_path / "dino.pth", tmp_path / "cache"
    networks = [(name, ViT(TINY).state_dict()) for name in ("student", "teacher")]
    torch.save({name: {f"backbone.{key}": t for key, t in state.items()} for name, state in networks}, path)
    config = ProbeConfig(backbone=TINY, linear_epochs=1)
    for source in ("dino_student", "dino", "dino"):
        init, out = InitialWeights(path=path, source=source, num_heads=2), tmp_path / f"{source}{time.monotonic_ns()}"
        run_probes(config, data=coloured, init=init, out=out, cache=cache, say=lambda _: None)
    assert len(list(cache.iterdir())) == 2 * 2  # a network's training and validation images, not extracted again


def test_tool(coloured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["vit_demo_patch8", "--data", str(coloured), "--out", str(tmp_path / "out"), "--image-size", "16", "16"]
    assert probe.main([*arguments, "--linear-epochs", "2", "--cache", str(tmp_path / "cache")]) == 0
    assert capsys.readouterr().out.splitlines()[-2].startswith("knn: top1 ")
    assert len(list((tmp_path / "cache").iterdir())) == 2
    record = json.loads((tmp_path / "out" / "knn" / "record.json").read_text())
    assert record["architecture"]["image_size"] == [16, 16] and record["weights_source"] == "random"
    assert probe.main(["vit_demo_patch9", *arguments[1:]]) == 1
    assert "no ViT is called 'vit_demo_patch9'" in capsys.readouterr().err
