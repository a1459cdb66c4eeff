"""Backbone checkpoints: what is written is read, what does not fit is named, what crashes spoils nothing."""

import errno
import json
import pickle
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import backbones.weights.checkpoint
from backbones.config import ViTConfig
from backbones.position import resize_patches, resize_position
from backbones.vit import ViT
from backbones.weights.checkpoint import FORMAT, write_checkpoint
from backbones.weights.declaration import InitialWeights
from backbones.weights.loader import Fit, load_checkpoint
from backbones.weights.normalisation import Normalisation
from backbones.weights.read import read_checkpoint
from files.digest import file_sha256

TINY = ViTConfig(embed_dim=16, depth=2, num_heads=2, patch_size=8, image_size=(32, 32))


def randomised(vit: ViT) -> ViT:
    """The ViT with every parameter random, so that no two tensors are equal by their initial value."""
    for parameter in vit.parameters():
        nn.init.normal_(parameter)
    return vit


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A checkpoint of a random tiny ViT."""
    path = tmp_path / "backbone.safetensors"
    write_checkpoint(path, randomised(ViT(TINY)), source="mae")
    return path


def test_round_trip_is_bit_exact(tmp_path: Path) -> None:
    vit = randomised(ViT(TINY))
    path = tmp_path / "new" / "folder" / "b.safetensors"
    constants = Normalisation(mean=(0.5, 0.25, 0.1), std=(0.3, 0.2, 0.1))
    write_checkpoint(path, vit, source="supervised", normalisation=constants)
    checkpoint = read_checkpoint(InitialWeights(path=path))
    assert (checkpoint.source, checkpoint.normalisation, checkpoint.num_prefix_positions) == (
        "supervised",
        constants,
        1,
    )
    assert checkpoint.architecture == TINY
    assert checkpoint.sha256 == file_sha256(path)
    assert [file.name for file in path.parent.iterdir()] == ["b.safetensors"]  # no temporary file is left
    other = ViT(TINY)
    report = load_checkpoint(other, checkpoint)
    for name, tensor in vit.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name
    assert report.loaded == tuple(sorted(vit.state_dict()))
    assert (report.resized, report.dropped) == ((), ())
    assert report.lines() == [
        f"b.safetensors (supervised, sha256 {checkpoint.sha256[:12]}): {len(report.loaded)} tensors loaded"
    ]


def test_resizing_is_reported(written: Path) -> None:
    checkpoint = read_checkpoint(InitialWeights(path=written))
    wide = ViT(TINY.at(48, 64))
    report = load_checkpoint(wide, checkpoint)
    assert report.resized == ("pos_embed: 4x4 -> 6x8 patches, bicubic",)
    assert report.dropped == ()
    expected = resize_position(checkpoint.state["pos_embed"], (4, 4), (6, 8), num_prefix_tokens=1)
    assert torch.equal(wide.pos_embed, expected)
    assert report.lines()[1:] == ["  resized pos_embed: 4x4 -> 6x8 patches, bicubic"]


def test_what_a_task_has_no_use_for_is_dropped_aloud(written: Path) -> None:
    checkpoint = read_checkpoint(InitialWeights(path=written))
    vit = ViT(TINY, class_token=False, final_norm=False)
    report = load_checkpoint(vit, checkpoint)
    assert sorted(report.dropped) == [
        "cls_token: the task's ViT has none",
        "norm.bias: the task's ViT has none",
        "norm.weight: the task's ViT has none",
        "pos_embed row 0: the task's ViT has no such token",
    ]
    assert torch.equal(vit.pos_embed, checkpoint.state["pos_embed"][:, 1:])
    assert set(report.loaded) | {"cls_token", "norm.weight", "norm.bias"} == set(checkpoint.state)


def test_missing_parameters_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    write_checkpoint(path, ViT(TINY, final_norm=False), source="mae")
    message = r"Missing 2 \(norm\.bias, norm\.weight\); unexpected 0 \(none\); other shape 0 \(none\)"
    vit = randomised(ViT(TINY))
    before = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_checkpoint(vit, read_checkpoint(InitialWeights(path=path)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in vit.state_dict().items())

    write_checkpoint(path, ViT(TINY, class_token=False), source="mae")
    with pytest.raises(ValueError, match="has no class token, which this task's ViT needs"):
        load_checkpoint(ViT(TINY), read_checkpoint(InitialWeights(path=path)))


def test_unexpected_parameters_are_refused(written: Path) -> None:
    checkpoint = read_checkpoint(InitialWeights(path=written))
    extra = {**checkpoint.state, **{f"blocks.0.gamma_{i}": torch.ones(16) for i in range(7)}}
    message = re.escape("unexpected 7 (blocks.0.gamma_0, ") + ".*gamma_4, and 2 more.*Hint: .* needs layer_scale"
    with pytest.raises(ValueError, match=message):
        load_checkpoint(ViT(TINY), replace(checkpoint, state=extra))
    reshaped = {**checkpoint.state, "norm.bias": torch.ones(15)}
    with pytest.raises(ValueError, match=re.escape("other shape 1 (norm.bias (15,) for (16,))")):
        load_checkpoint(ViT(TINY), replace(checkpoint, state=reshaped))


def test_other_architecture_is_named(written: Path) -> None:
    wanted = ViT(ViTConfig(embed_dim=32, depth=3, num_heads=2, patch_size=8, image_size=(64, 64)))
    message = re.escape(
        f"{written}: a checkpoint of another architecture: embed_dim 16 (recipe: 32), depth 2 (recipe: 3). Take the"
    )
    with pytest.raises(ValueError, match=message):
        load_checkpoint(wanted, read_checkpoint(InitialWeights(path=written)))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors: no such file"):
        read_checkpoint(InitialWeights(path=tmp_path / "nowhere.safetensors"))
    with pytest.raises(ValueError, match="is a folder"):
        read_checkpoint(InitialWeights(path=tmp_path))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_truncated_file(written: Path, share: float) -> None:
    content = written.read_bytes()
    written.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"backbone\.safetensors: (is empty|cannot be read to its end)"):
        read_checkpoint(InitialWeights(path=written))


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.mark,)


def test_no_code_of_the_file_runs(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    assert pickle.loads(pickle.dumps(Trap(mark))) is None and mark.exists()  # the trap works
    mark.unlink()
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": Trap(mark)}))
    torch.save({"model": Trap(mark)}, tmp_path / "b.pth")
    for name in ("a.pkl", "b.pth"):
        with pytest.raises(ValueError, match=f"{name}: "):
            read_checkpoint(InitialWeights(path=tmp_path / name))
    assert not mark.exists()


def test_not_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are no weights, but it is longer than eight bytes")
    with pytest.raises(ValueError, match=r"notes\.txt: is no weight file"):
        read_checkpoint(InitialWeights(path=path))


def test_foreign_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match=r"model\.safetensors: .*without this project's header .*found none"):
        read_checkpoint(InitialWeights(path=path))
    save_file({"weight": torch.ones(2)}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"expected '{FORMAT}', found \['format'\]"):
        read_checkpoint(InitialWeights(path=path))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_diverged_weights_are_refused(tmp_path: Path, value: float) -> None:
    vit = ViT(TINY)
    with torch.no_grad():
        vit.get_parameter("norm.weight")[3] = value
    write_checkpoint(tmp_path / "b.safetensors", vit, source="mae")
    message = r"1 with NaN or infinite values: norm\.weight"
    with pytest.raises(ValueError, match=message):
        read_checkpoint(InitialWeights(path=tmp_path / "b.safetensors"))


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: No space left on device")],
)
def test_full_disk_leaves_the_file_of_before(written: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    before = written.read_bytes()

    def fill(state: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        path.write_bytes(b"half a file")
        raise error

    monkeypatch.setattr(backbones.weights.checkpoint, "save_file", fill)
    with pytest.raises(OSError, match=r"backbone\.safetensors: could not be written .*No space left.*is as it was"):
        write_checkpoint(written, ViT(TINY), source="mae")
    assert written.read_bytes() == before
    assert [file.name for file in written.parent.iterdir()] == [written.name]


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    with pytest.raises(OSError, match=r"taken/b\.safetensors: could not be written"):
        write_checkpoint(tmp_path / "taken" / "b.safetensors", ViT(TINY), source="mae")


def test_header_is_plain_json(written: Path) -> None:
    length = int.from_bytes(written.read_bytes()[:8], "little")
    header = json.loads(written.read_bytes()[8 : 8 + length])["__metadata__"]
    assert json.loads(header[FORMAT])["architecture"] == json.loads(json.dumps(asdict(TINY)))


def test_equal_weights_make_equal_files(tmp_path: Path) -> None:
    vit = ViT(TINY)
    for name in "abcdef":
        write_checkpoint(tmp_path / name, vit, source="mae")
    assert len({(tmp_path / name).read_bytes() for name in "abcdef"}) == 1


def test_header_of_something_else_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(2)}, tmp_path / "odd", metadata={FORMAT: '{"architecture": {"depht": 3}}'})
    with pytest.raises(ValueError, match=r"odd: its header does not describe a ViT"):
        read_checkpoint(InitialWeights(path=tmp_path / "odd"))


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0.5,) * 3, (0.5, 0.0, 0.5), "normalisation has a std of (0.5, 0.0, 0.5); pixels are divided by it"),
        ((0.5,) * 3, (0.5, -1.0, 0.5), "pixels are divided by it, so it must be above 0"),
        ((0.5, float("nan"), 0.5), (0.5,) * 3, "normalisation has a mean of (0.5, nan, 0.5); it must be finite"),
        ((0.5,) * 3, (float("inf"),) * 3, "normalisation has a std of (inf, inf, inf); it must be finite"),
        (("a", "b", "c"), (0.5,) * 3, "it must be finite numbers, one per channel"),
        ((True,) * 3, (0.5,) * 3, "it must be finite numbers, one per channel"),
        ((0.5,) * 3, (0.5,), "normalisation has 3 means and 1 stds; each channel needs both"),
        ((), (), "normalisation has a mean of (); it must be finite numbers"),
    ],
)
def test_refused_normalisation(mean: tuple[float, ...], std: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Normalisation(mean, std)


def test_constants_are_one_per_channel(tmp_path: Path, written: Path) -> None:
    grey = ViT(replace(TINY, in_chans=1))
    message = r"\.safetensors: the weights are for images of 1 channels, and the normalisation has constants for 3"
    with pytest.raises(ValueError, match=message):
        write_checkpoint(tmp_path / "grey.safetensors", grey, source="mae")
    assert not (tmp_path / "grey.safetensors").exists()
    write_checkpoint(tmp_path / "grey.safetensors", grey, source="mae", normalisation=Normalisation((0.4,), (0.2,)))
    assert read_checkpoint(InitialWeights(path=tmp_path / "grey.safetensors")).normalisation == Normalisation(
        (0.4,), (0.2,)
    )
    with pytest.raises(ValueError, match="images of 3 channels, and the normalisation has constants for 1"):
        replace(read_checkpoint(InitialWeights(path=written)), normalisation=Normalisation((0.4,), (0.2,)))


def test_a_declaration_against_the_header_is_refused(written: Path) -> None:
    with pytest.raises(ValueError, match=r"backbone\.safetensors: num_heads was declared as 4, and the file tells 2"):
        read_checkpoint(InitialWeights(path=written, num_heads=4))
    with pytest.raises(ValueError, match=r"image_size was declared as \(16, 64\), and the file tells \(32, 32\)"):
        read_checkpoint(InitialWeights(path=written, image_size=(16, 64)))
    assert read_checkpoint(InitialWeights(path=written, num_heads=2, image_size=(32, 32))).architecture == TINY


def rewritten(path: Path, header: dict[str, object], **changes: Tensor | None) -> Path:
    """The file with other fields of the architecture in its header and other tensors; `__` in a name is a dot."""
    with safe_open(path, framework="pt") as file:
        content = json.loads(file.metadata()[FORMAT])
    state = {**load_file(path), **{name.replace("__", "."): tensor for name, tensor in changes.items()}}
    content["architecture"] |= header
    whole = {name: tensor.clone() for name, tensor in state.items() if tensor is not None}
    save_file(whole, path, metadata={FORMAT: json.dumps(content)})
    return path


@pytest.mark.parametrize(
    ("header", "changes", "message"),
    [
        ({"depth": 2.5}, {}, r"does not describe a ViT \(architecture\.depth: 2\.5 is no whole number"),
        ({"position": "rotary"}, {}, "architecture.position: 'rotary' is none of sincos, learned, none"),
        ({"depth": 10**7}, {}, "the weights have 2 blocks, and the architecture says 10000000"),
        ({"image_size": [8 * 10**12] * 2, "position": "learned"}, {}, "no ViT can be so large"),
        ({"image_size": [64, 32]}, {}, r"other shape 1 \(pos_embed \(1, 17, 16\) for \(1, 33, 16\)\)"),
        ({}, {"blocks__1__norm1__bias": None}, r"not whole\. Missing 1 \(blocks\.1\.norm1\.bias\)"),
        ({}, {"blocks__0__gamma_1": torch.ones(16)}, r"unexpected 1 \(blocks\.0\.gamma_1\)"),
        ({}, {"pos_embed": torch.ones(17, 16)}, r"pos_embed has the shape \(17, 16\), not 3 axes"),
        ({}, {"cls_token": torch.ones(1, 1, 0)}, r"cls_token has the shape \(1, 1, 0\), without a number in it"),
    ],
)
def test_a_header_that_its_weights_do_not_bear_out(
    written: Path, header: dict[str, object], changes: dict[str, Tensor | None], message: str
) -> None:
    with pytest.raises(ValueError, match=rf"backbone\.safetensors: .*{message}"):
        read_checkpoint(InitialWeights(path=rewritten(written, header, **changes)))


def test_what_cannot_be_resized_is_named(written: Path) -> None:
    checkpoint = read_checkpoint(InitialWeights(path=written))
    odd = replace(checkpoint, state={**checkpoint.state, "pos_embed": torch.ones(1, 18, 16)})
    with pytest.raises(
        ValueError, match=r"backbone\.safetensors: pos_embed: position table has 18 rows, which is not 1"
    ):
        load_checkpoint(ViT(TINY.at(64, 64)), odd)


def test_tokens_that_a_task_has_no_use_for(tmp_path: Path) -> None:
    distilled = replace(TINY, distilled=True)
    write_checkpoint(tmp_path / "two.safetensors", randomised(ViT(distilled)), source="deit")
    checkpoint = read_checkpoint(InitialWeights(path=tmp_path / "two.safetensors"))
    vit = ViT(TINY, class_token=False, final_norm=False)
    dropped = load_checkpoint(vit, checkpoint).dropped
    assert [line.partition(":")[0] for line in dropped if line.startswith("pos_embed")] == [
        "pos_embed row 0",
        "pos_embed row 1",
    ]
    assert torch.equal(vit.pos_embed, checkpoint.state["pos_embed"][:, 2:])
    write_checkpoint(tmp_path / "one.safetensors", ViT(TINY), source="mae")
    with pytest.raises(ValueError, match="the file has no distillation token, which this task's ViT needs"):
        load_checkpoint(ViT(distilled), read_checkpoint(InitialWeights(path=tmp_path / "one.safetensors")))


def test_half_precision_is_resized_in_single(tmp_path: Path) -> None:
    state = {name: tensor.half() for name, tensor in randomised(ViT(TINY)).state_dict().items()}
    torch.save({"model": state}, tmp_path / "half.pth")
    checkpoint = read_checkpoint(InitialWeights(path=tmp_path / "half.pth", source="mae", num_heads=2))
    vit = ViT(replace(TINY.at(96, 64), patch_size=16))
    load_checkpoint(vit, checkpoint, Fit(resize_patch=True))
    positions = resize_position(state["pos_embed"].float(), (4, 4), (6, 4), num_prefix_tokens=1)
    assert torch.equal(vit.pos_embed, positions) and not torch.equal(positions, positions.half().float())
    kernel = resize_patches(state["patch_embed.proj.weight"].float(), 16)
    assert torch.equal(vit.patch_embed.proj.weight, kernel) and not torch.equal(kernel, kernel.half().float())


def test_a_ratio_that_rounds_to_the_same_width_is_the_same(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "b.safetensors", ViT(replace(TINY, mlp_ratio=43 / 16)), source="mae")
    load_checkpoint(
        ViT(replace(TINY, mlp_ratio=2.69)), read_checkpoint(InitialWeights(path=tmp_path / "b.safetensors"))
    )
    with pytest.raises(ValueError, match=r"another architecture: mlp_ratio 2\.6875 \(recipe: 4\.0\)"):
        load_checkpoint(ViT(TINY), read_checkpoint(InitialWeights(path=tmp_path / "b.safetensors")))
