"""Tar shards and their kept index: what is read is what lies in the archive, or the shard is refused by its name."""

import io
import random
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine.images.shards
from engine.images.shards import Shards, open_shards

FORMS = (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT)


def shard(rng: random.Random, form: int) -> bytes:
    """An archive of a few small files, some with long names, one a link."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for number in range(rng.randrange(1, 5)):
            long = "d" * rng.choice((1, 90)) + "/"
            info = tarfile.TarInfo(f"{long}{number}{rng.choice(('.jpg', '.JPG', '.json', '.é.jpg'))}")
            info.size = rng.choice((0, 5, 511, 512, 700))
            archive.addfile(info, io.BytesIO(rng.randbytes(info.size)))
        if rng.random() < 0.3:
            link = tarfile.TarInfo("link.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "0.jpg"
            archive.addfile(link)
    return file.getvalue()


def in_header(rng: random.Random, content: bytes) -> bytes:
    """The archive with a field of its first header changed and the checksum made to fit."""
    data = bytearray(content)
    begin, end = rng.choice(
        ((0, 100), (100, 108), (124, 136), (124, 136), (136, 148), (156, 157), (257, 265), (345, 500))
    )
    for place in range(begin, end):
        if rng.random() < 0.3 or end - begin == 1:
            data[place] = rng.choice((rng.randrange(256), 0x80, 0xFF, ord("7"), ord("-"), 0))
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


def found_in(shards: Shards) -> list[tuple[str, bytes]]:
    return [(shards.place(number)[1], shards.read(number)) for number in range(len(shards))]


def test_shards(campaign: Any, damaged_bytes: Any, tmp_path: Path) -> None:
    path = tmp_path / "f.tar"

    def case(rng: random.Random) -> bytes:
        content = shard(rng, rng.choice(FORMS))
        kind = rng.randrange(4)
        return content if kind == 0 else in_header(rng, content) if kind == 1 else damaged_bytes(rng, content)

    def read(content: bytes) -> None:
        path.write_bytes(content)
        found = found_in(open_shards([path], (".jpg",))[0])
        with tarfile.open(path) as archive:  # the standard library says what is in it
            right = [
                (member.name.removeprefix("./"), archive.extractfile(member).read())  # type: ignore[union-attr]
                for member in archive
                if member.isreg() and member.name.lower().endswith(".jpg")
            ]
        assert found == right

    campaign.run(case, read, cases=300, names="f.tar")


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A shard, and its kept index."""
    monkeypatch.setenv("MAE_TRANSFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(engine.images.shards, "CACHED_FROM", 1)
    path = tmp_path / "f.tar"
    path.write_bytes(shard(random.Random(3), tarfile.PAX_FORMAT))
    open_shards([path], (".jpg",))
    (index,) = (tmp_path / "cache").iterdir()
    return path, index


def test_kept_index(campaign: Any, damaged_bytes: Any, kept: tuple[Path, Path]) -> None:
    path, index = kept
    whole = index.read_bytes()
    right = found_in(open_shards([path], (".jpg",))[0])
    assert right

    def case(rng: random.Random) -> bytes:
        if rng.random() < 0.5:
            return bytes(damaged_bytes(rng, whole))
        with np.load(io.BytesIO(whole)) as arrays:  # an index whose arrays do not fit, by another hand
            changed = {name: arrays[name].copy() for name in arrays.files}
        name = rng.choice(sorted(changed))  # of the bytes of the names only the number is known
        array = changed[name]
        changed[name] = rng.choice(
            (
                array[:-1],
                np.concatenate([array, array]),
                array.astype(np.float64),
                array[None],
                array * 0 - 1 if name != "name" else array[1:],
            )
        )
        if rng.random() < 0.2:
            del changed[name]
        file = io.BytesIO()
        np.savez(file, **changed)
        return file.getvalue()

    def read(content: bytes) -> None:
        index.write_bytes(content)
        assert found_in(open_shards([path], (".jpg",))[0]) == right

    outcomes = campaign.run(case, read, cases=300, names="f.tar")
    assert set(outcomes) == {"read"}  # a damaged index is made again


def test_flips_in_the_kept_index(flips: Any, kept: tuple[Path, Path]) -> None:
    path, index = kept
    assert zipfile.is_zipfile(index)
    flips.run([index], lambda: found_in(open_shards([path], (".jpg",))[0]), cases=150)
