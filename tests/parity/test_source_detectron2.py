"""detectron2's ViTDet files: maps and gradients equal to its ViT at any size, and files that it loads strictly."""

import functools
import pickle
from functools import partial
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.vit import SimpleFeaturePyramid
from detectron2.modeling.backbone.vit import ViT as Detectron2ViT
from torch import Tensor, nn

from backbones.config import ViTConfig
from backbones.sources.detectron2 import NET, rename
from backbones.vit import ViT
from backbones.weights.checkpoint import Checkpoint
from backbones.weights.convert import write_as
from backbones.weights.declaration import InitialWeights
from backbones.weights.loader import load_checkpoint
from backbones.weights.normalisation import Normalisation
from backbones.weights.read import read_checkpoint

DECLARED = partial(InitialWeights, source="detectron2")
DEPTH = 4


def vitdet(*, windows: bool = True, rel_pos: bool = True, class_row: bool = True) -> Detectron2ViT:
    """A small ViTDet: blocks 0 and 2 in windows of 3 patches, 1 and 3 over the whole image of 6 x 6 patches."""
    model = Detectron2ViT(
        img_size=48,
        patch_size=8,
        embed_dim=32,
        depth=DEPTH,
        num_heads=4,
        norm_layer=functools.partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=rel_pos,
        window_size=3 if windows else 0,
        window_block_indexes=(0, 2) if windows else (),
        pretrain_img_size=32,
        pretrain_use_cls_token=class_row,
    )
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.15, generator=generator)
    return model.eval()


class Detector(nn.Module):
    """A detector's names around a ViT: the real pyramid, stand-ins for what lies behind it."""

    def __init__(self, net: Detectron2ViT) -> None:
        super().__init__()
        self.backbone = SimpleFeaturePyramid(
            net, "last_feat", 16, scale_factors=(4.0, 2.0, 1.0, 0.5), top_block=LastLevelMaxPool(), norm="LN"
        )
        self.proposal_generator = nn.Linear(2, 2)
        self.roi_heads = nn.Linear(2, 2)


def zoo_file(model: nn.Module, path: Path) -> Path:
    """A pickle as detectron2's model zoo publishes them."""
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "someone", "matching_heuristics": True}))
    return path


def pth_file(model: nn.Module, path: Path) -> Path:
    torch.save({"model": model.state_dict()}, path)
    return path


def ours_of(checkpoint: Checkpoint) -> ViT:
    ours = ViT(checkpoint.architecture, class_token=False, final_norm=False)
    load_checkpoint(ours, checkpoint)
    return ours


def assert_same(made: Tensor, expected: Tensor) -> None:
    """Equal but for float32 rounding through four blocks and the sums of a gradient, some 1e-6 of the largest value."""
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5 * float(expected.detach().abs().max()))


def test_architecture_is_concluded_from_lengths(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(DECLARED(path=pth_file(Detector(vitdet()), tmp_path / "model.pth")))
    assert checkpoint.architecture == ViTConfig(
        embed_dim=32,
        depth=DEPTH,
        num_heads=4,
        patch_size=8,
        image_size=(32, 32),
        position="learned",
        relative_position="decomposed",
        relative_size=(48, 48),
        window_size=3,
        global_blocks=(1, 3),
    )


# 6 x 6 is the size of the relative positions; 8 x 5 and 7 x 11 are no multiples of the window; 4 x 4 of the positions
@pytest.mark.parametrize("grid", [(6, 6), (4, 4), (8, 5), (7, 11), (2, 3), (9, 6)])
@pytest.mark.parametrize("windows", [True, False], ids=["windows", "whole image"])
def test_maps_and_gradients_equal(grid: tuple[int, int], windows: bool, tmp_path: Path) -> None:
    theirs = vitdet(windows=windows)
    ours = ours_of(read_checkpoint(DECLARED(path=pth_file(Detector(theirs), tmp_path / "model.pth"))))
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(2, 3, 8 * grid[0], 8 * grid[1], generator=generator)
    expected = theirs(image)["last_feat"]
    (made,) = ours.feature_maps(image, [DEPTH - 1])
    assert_same(made, expected)
    weights = torch.randn(expected.shape, generator=generator)
    (expected * weights).sum().backward()
    (made * weights).sum().backward()
    gradients = rename({f"{NET}{name}": p.grad for name, p in theirs.named_parameters() if p.grad is not None}).state
    assert gradients.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None, name
        assert_same(parameter.grad, gradients[name])


def test_every_map_equals(tmp_path: Path) -> None:
    theirs = vitdet()
    maps: list[Tensor] = []
    for block in theirs.blocks:
        block.register_forward_hook(lambda _, inputs, map_BhwD: maps.append(map_BhwD.permute(0, 3, 1, 2)))
    ours = ours_of(read_checkpoint(DECLARED(path=pth_file(Detector(theirs), tmp_path / "model.pth"))))
    image = torch.randn(1, 3, 64, 40)
    with torch.no_grad():
        theirs(image)
        for made, expected in zip(ours.feature_maps(image, range(DEPTH)), maps, strict=True):
            assert_same(made, expected)


def test_without_relative_positions_and_without_the_class_row(tmp_path: Path) -> None:
    theirs = vitdet(windows=False, rel_pos=False, class_row=False)
    path = pth_file(Detector(theirs), tmp_path / "model.pth")
    checkpoint = read_checkpoint(DECLARED(path=path, num_heads=4))
    assert not any("pos_embed" in line for line in checkpoint.dropped)
    image = torch.randn(1, 3, 40, 64)
    with torch.no_grad():
        assert_same(ours_of(checkpoint).feature_maps(image, [DEPTH - 1])[0], theirs(image)["last_feat"])


def test_pickle_of_the_zoo_needs_trust(tmp_path: Path) -> None:
    theirs = vitdet()
    path = zoo_file(Detector(theirs), tmp_path / "model_final.pkl")
    with pytest.raises(ValueError, match=r"is a pickle.*Pass --trust-pickle only for a file of a trusted origin"):
        read_checkpoint(DECLARED(path=path))
    checkpoint = read_checkpoint(InitialWeights(path=path, source="detectron2", trust_pickle=True))
    assert torch.equal(checkpoint.state["blocks.1.attn.rel_pos_h"], theirs.blocks[1].attn.rel_pos_h)


def test_training_checkpoint_of_detectron2(tmp_path: Path) -> None:
    detector = Detector(vitdet())
    optimizer = torch.optim.AdamW(detector.parameters())
    DetectionCheckpointer(detector, str(tmp_path), optimizer=optimizer).save("model_0000009", iteration=9)
    checkpoint = read_checkpoint(DECLARED(path=tmp_path / "model_0000009.pth"))
    rules = {line.partition(": ")[2] for line in checkpoint.dropped}
    assert rules == {
        "the feature pyramid, of another task",
        "the proposals of the detector",
        "the heads of the detector",
        "of the class token, which detectron2's ViT has not",
        "not the entry of the weights",  # optimizer, iteration
    }
    assert checkpoint.state.keys() == {name.removeprefix(NET) for name in detector.state_dict() if name.startswith(NET)}
    assert checkpoint.state["pos_embed"].shape == (1, 16, 32)


def test_pixel_statistics_are_the_normalisation(tmp_path: Path) -> None:
    detector = Detector(vitdet())
    detector.register_buffer("pixel_mean", torch.tensor([51.0, 102.0, 153.0]).view(3, 1, 1))
    detector.register_buffer("pixel_std", torch.tensor([25.5, 51.0, 255.0]).view(3, 1, 1))
    checkpoint = read_checkpoint(DECLARED(path=pth_file(detector, tmp_path / "model.pth")))
    assert checkpoint.normalisation == Normalisation((0.2, 0.4, 0.6), (0.1, 0.2, 1.0))


# detectron2's old default, of pixels that its BGR images have, and Caffe's, with which it began
@pytest.mark.parametrize("mean", [[103.53, 116.28, 123.675], [102.9801, 115.9465, 122.7717]])
def test_weights_for_bgr_are_turned_to_rgb(mean: list[float], tmp_path: Path) -> None:
    theirs = vitdet()
    detector = Detector(theirs)
    std = torch.tensor([57.375, 57.12, 58.395]).view(3, 1, 1)
    detector.register_buffer("pixel_mean", torch.tensor(mean).view(3, 1, 1))
    detector.register_buffer("pixel_std", std)
    checkpoint = read_checkpoint(DECLARED(path=pth_file(detector, tmp_path / "model.pth")))
    assert checkpoint.notes == ("patch_embed.proj.weight: channels turned from BGR, which pixel_mean shows, to RGB",)
    constants = checkpoint.normalisation
    assert constants.mean == pytest.approx([value / 255 for value in reversed(mean)])
    assert constants.std == pytest.approx([58.395 / 255, 57.12 / 255, 57.375 / 255])
    rgb = torch.randint(0, 256, (1, 3, 40, 64), generator=torch.Generator().manual_seed(1)).float()
    our_pixels = (rgb / 255 - torch.tensor(constants.mean).view(3, 1, 1)) / torch.tensor(constants.std).view(3, 1, 1)
    their_pixels = (rgb.flip(1) - detector.pixel_mean) / detector.pixel_std
    with torch.no_grad():
        assert_same(ours_of(checkpoint).feature_maps(our_pixels, [DEPTH - 1])[0], theirs(their_pixels)["last_feat"])


@pytest.mark.parametrize(
    ("buffers", "message"),
    [
        ({"pixel_mean": torch.zeros(3)}, "the file holds pixel_mean alone"),
        (
            {"pixel_mean": torch.zeros(1), "pixel_std": torch.ones(1)},
            "pixel_mean has 1 values, and the patch projectio",
        ),
        ({"pixel_mean": torch.zeros(3), "pixel_std": torch.zeros(3)}, r"a std of \(0\.0, 0\.0, 0\.0\); pixels are div"),
        ({"pixel_mean": torch.zeros(3), "pixel_std": torch.ones(2)}, "3 means and 2 stds"),
    ],
)
def test_refused_pixel_statistics(buffers: dict[str, Tensor], message: str, tmp_path: Path) -> None:
    torch.save({"model": {**Detector(vitdet()).state_dict(), **buffers}}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=rf"model\.pth: .*{message}"):
        read_checkpoint(DECLARED(path=tmp_path / "model.pth"))


def test_round_trip_through_detectron2(tmp_path: Path) -> None:
    theirs = vitdet()
    with torch.no_grad():
        theirs.pos_embed[:, 0] = 0  # the unused row comes back as zeros
    write_as(
        read_checkpoint(DECLARED(path=pth_file(Detector(theirs), tmp_path / "in.pth"))),
        "detectron2",
        tmp_path / "out.pth",
    )
    state = torch.load(tmp_path / "out.pth", weights_only=True)["model"]
    again = Detectron2ViT(
        img_size=48,
        patch_size=8,
        embed_dim=32,
        depth=DEPTH,
        num_heads=4,
        use_rel_pos=True,
        window_size=3,
        window_block_indexes=(0, 2),
        pretrain_img_size=32,
    )
    again.load_state_dict({name.removeprefix(NET): tensor for name, tensor in state.items()}, strict=True)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in theirs.state_dict().items())
    # and by the loader that its trainers use
    detector = Detector(vitdet(windows=True))
    for parameter in detector.backbone.net.parameters():
        nn.init.zeros_(parameter)
    DetectionCheckpointer(detector).load(str(tmp_path / "out.pth"))
    assert all(torch.equal(detector.state_dict()[name], tensor) for name, tensor in state.items())


def test_pretrained_weights_become_detectron2s(tmp_path: Path) -> None:
    # as from a pre-training: class token and final norm, sin-cos positions
    ours = ViT(ViTConfig(embed_dim=32, depth=DEPTH, num_heads=4, patch_size=8, image_size=(32, 32)))
    checkpoint = Checkpoint(
        path=tmp_path / "mae.pth",
        digest=lambda: "0" * 64,
        state=ours.state_dict(),
        architecture=ours.architecture,
        source="mae",
    )
    write_as(checkpoint, "detectron2", tmp_path / "out.pth")
    state = torch.load(tmp_path / "out.pth", weights_only=True)["model"]
    theirs = vitdet(windows=False, rel_pos=False)
    theirs.load_state_dict({name.removeprefix(NET): tensor for name, tensor in state.items()}, strict=True)
    without = ViT(ours.architecture, class_token=False, final_norm=False)
    load_checkpoint(without, checkpoint)
    image = torch.randn(1, 3, 40, 48)
    with torch.no_grad():
        assert_same(without.feature_maps(image, [DEPTH - 1])[0], theirs(image)["last_feat"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {f"{NET}blocks.3.residual.conv1.weight": torch.ones(2)},
            r"1 of \d+ names .*blocks\.3\.residual\.conv1\.weight",
        ),
        ({f"{NET}cls_token": torch.ones(1, 1, 32)}, f"{NET}cls_token"),
        ({"bottom_up.res2.weight": torch.ones(2)}, "bottom_up.res2.weight"),
        ({f"{NET}pos_embed": torch.ones(1, 15, 32)}, "pos_embed has 15 rows, which is no square"),
    ],
)
def test_refused_files(changes: dict[str, Tensor], message: str, tmp_path: Path) -> None:
    torch.save({"model": {**Detector(vitdet()).state_dict(), **changes}}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=message):
        read_checkpoint(DECLARED(path=tmp_path / "model.pth"))


def test_another_source_refuses_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="read as source 'mae'"):
        read_checkpoint(InitialWeights(path=pth_file(Detector(vitdet()), tmp_path / "model.pth"), source="mae"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blocks.0.gamma_1", "no place for 1 tensors: blocks.0.gamma_1; write another format"),
        ("blocks.0.attn.relative_position_bias_table", "write another format"),
        ("mask_token", "leave decoder and head out \\(--encoder-only\\)"),
        ("head.weight", "leave decoder and head out \\(--encoder-only\\)"),
    ],
)
def test_refused_to_write(name: str, message: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(DECLARED(path=pth_file(Detector(vitdet()), tmp_path / "model.pth")))
    checkpoint.state[name] = torch.zeros(1)
    with pytest.raises(ValueError, match=message):
        write_as(checkpoint, "detectron2", tmp_path / "out.pth")
