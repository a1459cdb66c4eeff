"""A file of the hub's cache is hashed once, when it is compared; a change since then is seen."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from huggingface_hub import constants, hf_hub_download
from safetensors.torch import save

from backbones.weights import digest, hub, reader
from backbones.weights.compared import MARKS, compared_digest, published_digest
from backbones.weights.hub import find, parse
from backbones.weights.reader import read_weight_file
from benchmark.study import pins
from tests.hub_server import Hub, Repository, commit, serving

WEIGHTS = save({"a": torch.arange(6.0)})
OTHER = save({"a": torch.arange(6.0) + 1})
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving({"some/vit": Repository({commit(1): {"model.safetensors": WEIGHTS}}, {"main": commit(1)})}) as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        digest._begin.cache_clear()
        yield made


def hashes(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is hashed from here on."""
    seen: list[object] = []

    def of_path(path: Path) -> str:
        seen.append(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def of_file(file: BinaryIO) -> str:
        seen.append(file)
        return hashlib.sha256(file.read()).hexdigest()

    monkeypatch.setattr(hub, "file_sha256", of_path)
    monkeypatch.setattr(pins, "file_sha256", of_path)
    monkeypatch.setattr(digest, "sha256_of", of_file)
    return seen


def test_it_is_hashed_once_and_read_without(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = hashes(monkeypatch)
    path = find(parse("hf:some/vit")).path
    assert len(seen) == 1 and compared_digest(path) == published_digest(path) == SHA256
    assert find(parse("hf:some/vit")).path == path
    assert read_weight_file(path).sha256 == SHA256
    assert pins.pinned(tmp_path / "study", ["hf:some/vit"], fetch=True) == {"hf:some/vit": path}
    assert len(seen) == 1


def test_a_change_since_then_is_hashed_and_refused(server: Hub, tmp_path: Path) -> None:
    path = find(parse("hf:some/vit")).path
    pins.pinned(tmp_path / "study", ["hf:some/vit"], fetch=True)
    blob = path.resolve()
    blob.write_bytes(OTHER)
    os.utime(blob, ns=(1, 1))  # whatever the clock: the time is another
    assert compared_digest(path) is None
    assert read_weight_file(path).sha256 == hashlib.sha256(OTHER).hexdigest()
    with pytest.raises(ValueError, match=f"was a file of sha256 {SHA256[:12]} when the study began"):
        pins.pinned(tmp_path / "study", ["hf:some/vit"], fetch=True)
    with pytest.raises(ValueError, match="what arrived is not what was published"):
        find(parse("hf:some/vit"))
    assert not path.exists()


def test_what_another_program_downloaded_is_compared(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(hf_hub_download("some/vit", "model.safetensors", endpoint=server.url))
    assert published_digest(path) == SHA256 and compared_digest(path) is None
    seen = hashes(monkeypatch)
    find(parse("hf:some/vit"))
    assert len(seen) == 1 and compared_digest(path) == SHA256


def test_without_a_mark_it_is_hashed(server: Hub, tmp_path: Path) -> None:
    path = find(parse("hf:some/vit")).path
    (mark,) = (tmp_path / "home" / MARKS).iterdir()
    for content in ("", "[1, 2]\n", "null\n"):
        mark.write_text(content)
        assert compared_digest(path) is None
    mark.unlink()
    assert compared_digest(path) is None and read_weight_file(path).sha256 == SHA256


def test_a_file_elsewhere_is_never_taken_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / SHA256
    path.write_bytes(WEIGHTS)
    assert published_digest(path) is None and compared_digest(path) is None
    assert reader.compared_digest is compared_digest
