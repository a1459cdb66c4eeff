"""Images in tar shards: any file is read at its place, in a stated order, and what is no whole tar file is refused."""

import io
import os
import pickle
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import engine.images.shards
from engine.images.reading import UnreadableImageError, open_images
from engine.images.shards import open_shards
from files.naming import system_part


def pack(path: Path, members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as shard:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))
    return path


def png(level: int, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (5, 4), level if mode == "L" else (level, 0, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three images in two shards of WebDataset's layout, one of them grey."""
    pack(tmp_path / "b.tar", {"./z.png": png(1), "./z.cls": b"3", "./a.png": png(90, "L"), "./a.json": b"{}"})
    pack(tmp_path / "below" / "a.tar", {"0001.PNG": png(2), "readme": b"hello"})
    return tmp_path


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0\\", exclude_categories=["Cs", "Cc"]), min_size=1)
FILES = st.dictionaries(
    st.tuples(
        st.lists(NAMES, max_size=2).map(tuple),
        NAMES.map(lambda n: n * 9),
        st.sampled_from([".jpg", ".JPG", ".json", ""]),
    ),
    st.binary(max_size=1500),
    max_size=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(packed=st.lists(FILES, min_size=1, max_size=3), form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_every_file_is_read_at_its_place(packed: list[dict], form: int, tmp_path: Path) -> None:
    paths, expected = [], []
    for number, files in enumerate(packed):
        members = {"x" + "/".join([*folders, stem]) + ending: data for (folders, stem, ending), data in files.items()}
        paths.append(pack(tmp_path / f"{number}.tar", members, form))
        with tarfile.open(paths[-1]) as shard:  # the standard library says what is in it
            for member in shard:
                if member.name.lower().endswith(".jpg") and system_part(member.name) is None:
                    expected.append((paths[-1], member.name, shard.extractfile(member).read()))
    found, notes = open_shards(paths, (".jpg",))
    numbers = list(range(len(found)))
    random.shuffle(numbers)
    assert {n: (*found.place(n), found.read(n)) for n in numbers} == dict(enumerate(expected))
    assert notes == ()
    assert sum(found.index.others.values()) + len(found) == sum(map(len, packed))


def test_order_names_and_notes(shards: Path) -> None:
    images = open_images(shards)
    # b.tar comes before below/a.tar, and within a shard the order is its own
    assert [images.image_id(i) for i in range(len(images))] == ["b.tar/z.png", "b.tar/a.png", "below/a.tar/0001.PNG"]
    assert [images.read(i).getpixel((0, 0)) for i in range(3)] == [(1, 0, 0), (90, 90, 90), (2, 0, 0)]
    name = shards.name
    assert images.notes == (
        f"{name}: 3 images in 2 tar shard(s), by shard and place in it",
        f"{name}: no images, left out of the shards: 1 .cls, 1 .json, 1 no ending",
    )


def test_links_and_empty_shards_are_counted(shards: Path) -> None:
    pack(shards / "c.tar", {"c.txt": b"nothing to see", "./._c.jpg": b"", "__MACOSX/z.png": b""})
    with tarfile.open(shards / "d.tar", "w") as shard:
        link = tarfile.TarInfo("again.png")
        link.type, link.linkname = tarfile.SYMTYPE, "z.png"
        shard.addfile(link)
    notes = open_images(shards).notes
    others = "1 .cls, 1 .json, 1 .txt, 2 hidden or of the system, 1 links, 1 no ending"
    assert f"{shards.name}: no images, left out of the shards: {others}" in notes
    assert f"{shards.name}: 2 shard(s) without an image (c.tar, d.tar)" in notes


def test_read_after_fork_pickle_and_with_few_descriptors(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.images.shards, "MOST_OPEN", 1)
    images = open_images(shards)
    expected = [images.read(i).tobytes() for i in range(3)]  # the descriptors are open now
    assert len(images.shards._open) == 1
    child = os.fork()
    if not child:
        os._exit(0 if [images.read(i).tobytes() for i in (2, 0, 1)] == [expected[i] for i in (2, 0, 1)] else 1)
    assert [images.read(i).tobytes() for i in range(3)] == expected
    assert os.waitpid(child, 0)[1] == 0
    sent = pickle.loads(pickle.dumps(images))
    assert not sent.shards._open
    assert [sent.read(i).tobytes() for i in range(3)] == expected


def test_damaged_image_is_unreadable_and_named(shards: Path) -> None:
    pack(shards / "c.tar", {"bad.png": png(3)[:40], "good.png": png(4)})
    images = open_images(shards)
    ids = [images.image_id(i) for i in range(len(images))]
    with pytest.raises(UnreadableImageError, match=r"c\.tar/bad\.png: unreadable image"):
        images.read(ids.index("c.tar/bad.png"))
    assert images.read(ids.index("c.tar/good.png")).getpixel((0, 0)) == (4, 0, 0)
    (shards / "c.tar").write_bytes((shards / "c.tar").read_bytes()[:600])  # cut while the run has it open
    with pytest.raises(UnreadableImageError, match=r"good\.png: unreadable image \(c\.tar ends after 0 of its \d+ by"):
        images.read(ids.index("c.tar/good.png"))
    (shards / "below" / "a.tar").unlink()
    with pytest.raises(UnreadableImageError, match=r"below/a\.tar/0001\.PNG: unreadable image \(.*No such file"):
        images.read(ids.index("below/a.tar/0001.PNG"))


def cut_data(raw: bytes) -> bytes:
    return raw[:700]


def cut_header(raw: bytes) -> bytes:
    return raw[:300]


def cut_between(raw: bytes) -> bytes:
    return raw[:1024]  # after the first of two files


def overwritten(raw: bytes) -> bytes:
    return raw[:1024] + b"x" * 512 + raw[1536:]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_data, r"s\.tar: no whole uncompressed tar file \(unexpected end of data\); copy it again if it was cut"),
        (cut_header, r"s\.tar: no whole uncompressed tar file \(truncated header\)"),
        (cut_between, r"s\.tar: cut off: it ends after 1,024 bytes without the empty block that closes a tar file"),
        (overwritten, r"s\.tar: damaged: byte 1,024 of 10,240 begins no file; copy it again"),
        (lambda raw: b"", r"s\.tar: no whole uncompressed tar file \(empty file\)"),
    ],
)
def test_damaged_shard_is_refused(damage: Callable[[bytes], bytes], message: str, tmp_path: Path) -> None:
    path = pack(tmp_path / "s.tar", {"a.png": png(1), "b.png": png(2)})
    assert len(open_images(tmp_path)) == 2
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        open_images(tmp_path)


def test_other_folders_are_refused(shards: Path, tmp_path: Path) -> None:
    pack(shards / "twice.tar", {"a.png": png(1)})
    with tarfile.open(shards / "twice.tar", "a") as shard:
        shard.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(ValueError, match=r"twice\.tar: holds 'a\.png' twice; pack the shard again"):
        open_images(shards)
    (shards / "twice.tar").rename(shards / "twice.tar.gz")
    with pytest.raises(ValueError, match=r"twice\.tar\.gz: compressed, .*`gunzip`.*unpack it with `tar -xf twice\.tar"):
        open_images(shards)
    (shards / "loose.png").write_bytes(png(1))
    with pytest.raises(
        ValueError, match=r"holds 1 image files \(loose\.png, \.\.\.\) and 2 archives \(b\.tar, \.\.\.\)"
    ):
        open_images(shards)
    empty = tmp_path / "empty"
    pack(empty / "a.tar", {"a.npy": b"0"})
    with pytest.raises(FileNotFoundError, match=r"its 1 \.tar file\(s\) hold no image .*; found in them: 1 \.npy"):
        open_images(empty)


def test_index_is_kept_and_made_again(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("MAE_TRANSFER_CACHE", str(cache))
    open_images(shards)
    assert not cache.exists()  # few files are found quickly
    monkeypatch.setattr(engine.images.shards, "CACHED_FROM", 3)
    first = open_images(shards)
    (kept,) = cache.iterdir()
    with monkeypatch.context() as reading:
        reading.setattr(tarfile, "open", None)  # no shard is opened again
        again = open_images(shards)
    assert again.notes == first.notes
    assert [again.image_id(i) for i in range(3)] == [first.image_id(i) for i in range(3)]
    assert np.array_equal(again.shards.index.offset_N, first.shards.index.offset_N)

    pack(shards / "b.tar", {"new.png": png(7), "other.png": png(8)})
    changed = open_images(shards)
    assert changed.image_id(0) == "b.tar/new.png"
    assert any("shards changed since they were indexed; indexed again" in note for note in changed.notes)
    kept.write_bytes(kept.read_bytes()[:100])
    assert any("index of the shards not usable, made again" in note for note in open_images(shards).notes)
    assert len(open_images(shards).notes) == 2  # kept again
