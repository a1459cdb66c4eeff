"""Checksums within weight files: by hand, on damage that keeps every shape, and for files that have none."""

import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights.checkpoint import FORMAT, UNSTAMPED, write_checkpoint
from backbones.weights.convert import write_as
from backbones.weights.declaration import InitialWeights
from backbones.weights.inspect import inspect_file
from backbones.weights.loader import load_checkpoint
from backbones.weights.read import read_checkpoint

TINY = ViTConfig(embed_dim=8, depth=1, num_heads=2, patch_size=4, image_size=(8, 8))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "backbone.safetensors", ViT(TINY), source="mae")
    return tmp_path / "backbone.safetensors"


def damaged(path: Path, data: bytes, place: int = 0) -> None:
    """Change the lowest bit of a byte within `data`, which the file holds: a number moves by its last digit."""
    whole = path.read_bytes()
    assert whole.count(data) == 1
    at = whole.index(data) + place
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])


def test_the_number_by_hand(own: Path) -> None:
    with safe_open(own, framework="pt") as file:
        number = json.loads(file.metadata()[FORMAT])["crc32"]
    blank = own.read_bytes().replace(b'\\"crc32\\": \\"%s\\"' % number.encode(), b'\\"crc32\\": \\"00000000\\"')
    assert number == f"{zlib.crc32(blank):08x}"


def test_damage_to_our_file(own: Path) -> None:
    kernel = read_checkpoint(InitialWeights(path=own)).state["patch_embed.proj.weight"].numpy().tobytes()
    damaged(own, kernel, 40)
    checkpoint = read_checkpoint(InitialWeights(path=own))  # the threads are at work
    vit = ViT(TINY)
    before = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    message = r"backbone\.safetensors: is not what was written: its checksum differs, so it is damaged\. Fetch"
    with pytest.raises(ValueError, match=message):
        load_checkpoint(vit, checkpoint)
    assert all(torch.equal(tensor, before[name]) for name, tensor in vit.state_dict().items())
    for target, name in (("timm", "out.safetensors"), ("own", "again.safetensors"), ("mae", "out.pth")):
        with pytest.raises(ValueError, match=message):
            write_as(checkpoint, target, own.with_name(name))
    with pytest.raises(ValueError, match=message):
        inspect_file(InitialWeights(path=own))
    assert [file.name for file in own.parent.iterdir()] == [own.name]


def test_damage_to_a_number_of_our_header(own: Path) -> None:
    damaged(own, b"0.485", 4)  # the pixels' mean becomes 0.484
    checkpoint = read_checkpoint(InitialWeights(path=own))
    assert checkpoint.normalisation.mean[0] == 0.484
    with pytest.raises(ValueError, match=r"backbone\.safetensors: is not what was written"):
        load_checkpoint(ViT(TINY), checkpoint)


def test_our_files_of_before(own: Path) -> None:
    with safe_open(own, framework="pt") as file:
        header = json.loads(file.metadata()[FORMAT])
    del header["crc32"]
    state = load_file(own)
    save_file(state, own.with_name("old.safetensors"), metadata={FORMAT: json.dumps(header)})
    checkpoint = read_checkpoint(InitialWeights(path=own.with_name("old.safetensors")))
    load_checkpoint(ViT(TINY), checkpoint)
    assert checkpoint.notes == (UNSTAMPED,)
    assert read_checkpoint(InitialWeights(path=own)).notes == ()


@pytest.mark.parametrize("trusted", [False, True])
def test_damage_to_a_file_of_pytorch(trusted: bool, tmp_path: Path, samples: dict[str, Any]) -> None:
    path = samples["mae"].write(tmp_path / "mae")
    damaged(path, samples["mae"].tensors["cls_token"].numpy().tobytes(), 4)
    torch.load(path, weights_only=True)  # sees nothing
    checkpoint = read_checkpoint(InitialWeights(path=path, source="mae", num_heads=2, trust_pickle=trusted))
    with pytest.raises(ValueError, match=r"mae\.pth: is not what was written, so it is damaged \(Bad CRC-32"):
        load_checkpoint(ViT(checkpoint.architecture), checkpoint)


def test_a_damaged_pickle_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "run.pth"
    torch.save({"model": {"a": torch.full((9,), 1.5)}, "marker": _Marker(tmp_path / "made")}, path)
    damaged(path, struct.pack("<9f", *[1.5] * 9))
    with pytest.raises(ValueError, match=r"run\.pth: is not what was written"):
        read_checkpoint(InitialWeights(path=path, source="mae", trust_pickle=True))
    assert not (tmp_path / "made").exists()


def test_a_file_of_pytorch_without_checksums(tmp_path: Path, samples: dict[str, Any]) -> None:
    """As `torch.serialization.set_crc32_options(False)` writes it, it is read as it is."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        path = samples["mae"].write(tmp_path / "mae")
    finally:
        torch.serialization.set_crc32_options(before)
    with zipfile.ZipFile(path) as archive:
        assert {record.CRC for record in archive.infolist()} == {0}
    checkpoint = samples["mae"].read(path)
    load_checkpoint(ViT(checkpoint.architecture), checkpoint)


def test_damage_to_a_header_of_numpy(tmp_path: Path, samples: dict[str, Any]) -> None:
    """A dtype of half the width reads half of the record."""
    path = samples["augreg"].write(tmp_path / "jax")
    whole = path.read_bytes()
    at = whole.index(b"'<f4'", whole.index(b"encoder_norm/bias.npy"))
    path.write_bytes(whole[: at + 3] + b"2" + whole[at + 4 :])
    with pytest.raises(ValueError, match=r"jax\.npz: "):
        checkpoint = samples["augreg"].read(path)
        load_checkpoint(ViT(checkpoint.architecture), checkpoint)


class _Marker:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize(
    ("source", "place", "bit", "fault"),
    [
        ("mae", b"PK\x01\x02...", 0x80, "zip file version"),  # the version that is needed to extract
        ("augreg", b"PK\x01\x02...", 0x80, "zip file version"),
        ("mae", b"_rebuild_tensor_v2", 1, r"_rebuild_tensor_v3\(\) missing 1 required"),  # another function
    ],
)
def test_damage_that_others_parsers_do_not_expect(
    source: str, place: bytes, bit: int, fault: str, samples: dict[str, Any], tmp_path: Path
) -> None:
    path = samples[source].write(tmp_path / "file")
    whole = bytearray(path.read_bytes())
    at = whole.index(place.rstrip(b".")) + len(place) - 1
    whole[at] ^= bit
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=rf"file\.\w+: .*{fault}"):
        samples[source].read(path)


@pytest.mark.parametrize("more", range(0, 256, 8))
def test_a_header_of_any_length_is_compared(more: int, tmp_path: Path) -> None:
    """The first byte of a safetensors file is of its header's length, and may be that of a pickle (128)."""
    path = tmp_path / "b.safetensors"
    write_checkpoint(path, ViT(TINY), source="x" * (more + 1))
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="its checksum differs, so it is damaged"):
        read_checkpoint(InitialWeights(path=path)).check()
