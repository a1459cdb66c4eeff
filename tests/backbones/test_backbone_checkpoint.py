"""Backbone checkpoints: what is written is read, what does not fit is named, what crashes spoils nothing."""

import errno
import json
import pickle
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

import backbones.checkpoint
from backbones.checkpoint import FORMAT, Normalisation, write_checkpoint
from backbones.config import ViTConfig
from backbones.loading import load_checkpoint
from backbones.position import resize_position
from backbones.sources.read import read_checkpoint
from backbones.vit import ViT
from backbones.weight_files import file_sha256

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
    checkpoint = read_checkpoint(path)
    assert (checkpoint.source, checkpoint.normalisation, checkpoint.prefix) == ("supervised", constants, 1)
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
    checkpoint = read_checkpoint(written)
    wide = ViT(TINY.at(48, 64))
    report = load_checkpoint(wide, checkpoint)
    assert report.resized == ("pos_embed: 4x4 -> 6x8 patches, bicubic",)
    assert report.dropped == ()
    expected = resize_position(checkpoint.state["pos_embed"], (4, 4), (6, 8), prefix=1)
    assert torch.equal(wide.pos_embed, expected)
    assert report.lines()[1:] == ["  resized pos_embed: 4x4 -> 6x8 patches, bicubic"]


def test_what_a_task_has_no_use_for_is_dropped_aloud(written: Path) -> None:
    checkpoint = read_checkpoint(written)
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
        load_checkpoint(vit, read_checkpoint(path))
    assert all(torch.equal(tensor, before[name]) for name, tensor in vit.state_dict().items())

    write_checkpoint(path, ViT(TINY, class_token=False), source="mae")
    with pytest.raises(ValueError, match="has no class token, which this task's ViT needs"):
        load_checkpoint(ViT(TINY), read_checkpoint(path))


def test_unexpected_parameters_are_refused(written: Path) -> None:
    checkpoint = read_checkpoint(written)
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
        load_checkpoint(wanted, read_checkpoint(written))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors: no such file"):
        read_checkpoint(tmp_path / "nowhere.safetensors")
    with pytest.raises(ValueError, match="is a folder"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_truncated_file(written: Path, share: float) -> None:
    content = written.read_bytes()
    written.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"backbone\.safetensors: (is empty|cannot be read to its end)"):
        read_checkpoint(written)


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
            read_checkpoint(tmp_path / name)
    assert not mark.exists()


def test_not_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are no weights, but it is longer than eight bytes")
    with pytest.raises(ValueError, match=r"notes\.txt: is no weight file"):
        read_checkpoint(path)


def test_foreign_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match=r"model\.safetensors: .*without this project's header .*found none"):
        read_checkpoint(path)
    save_file({"weight": torch.ones(2)}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"expected '{FORMAT}', found \['format'\]"):
        read_checkpoint(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_diverged_weights_are_refused(tmp_path: Path, value: float) -> None:
    vit = ViT(TINY)
    with torch.no_grad():
        vit.get_parameter("norm.weight")[3] = value
    write_checkpoint(tmp_path / "b.safetensors", vit, source="mae")
    message = r"1 with NaN or infinite values: norm\.weight"
    with pytest.raises(ValueError, match=message):
        read_checkpoint(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: No space left on device")],
)
def test_full_disk_leaves_the_file_of_before(written: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    before = written.read_bytes()

    def fill(state: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        path.write_bytes(b"half a file")
        raise error

    monkeypatch.setattr(backbones.checkpoint, "save_file", fill)
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
        read_checkpoint(tmp_path / "odd")
