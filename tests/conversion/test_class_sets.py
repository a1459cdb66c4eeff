"""Folders of classes from a CSV file and from Hugging Face's data sets: what is written, counted and refused."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from conversion import huggingface, table
from conversion.class_folders import write_class_folders

FEATURES = {"image": {"_type": "Image"}, "label": {"names": ["cat", "a/b"], "_type": "ClassLabel"}}


def written(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() + "/" * path.is_dir() for path in out.rglob("*"))


def test_a_table(tmp_path: Path, draw: Callable[..., Path]) -> None:
    for name in ("a.png", "deep/b.png", "c.png"):
        draw(tmp_path / "images" / name)
    (tmp_path / "images/d.gif").write_text("")
    rows = [
        "file,label,split",
        "a.png,cat,train",
        "deep/b.png,dog,",
        "c.png,cat,validation",
        "a.png,cat,train",
        "no.png,cat,train",
        "d.gif,cat,train",
        ",cat,",
    ]
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(rows))
    found = table.read_table(path, table.Columns(), images=tmp_path / "images")
    lines = write_class_folders(found, tmp_path / "out")
    assert [name for name in written(tmp_path / "out") if name.count("/") > 1 and name[-5:] != "deep/"] == [
        "train/cat/",
        "train/cat/a.png",
        "train/dog/",
        "train/dog/deep/b.png",
        "val/cat/",
        "val/cat/c.png",
        "val/dog/",
    ]
    assert (tmp_path / "out/train/cat/a.png").is_symlink()
    assert lines == [
        "train: 2 images of 2 classes, of split 'train'",
        "val: 1 images of 2 classes, of split 'validation'",
        "lines without a file or a class, left out: 1 (labels.csv, line 8)",
        f"images that come twice in one class, taken once: 1 ({path}, line 5: a.png)",
        "images that are not there, left out with their annotations: 1 (labels.csv, line 6: no.png)",
        f"files of no image format that is read, left out: 1 ({path}, line 7: d.gif)",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\na,b\n", r"has no column 'file'; it has name, label. Name it with --columns.file"),
        ("file,label\n", "has no image with a class below its first line"),
        ("file,label\na.png,x\na.png,y\n", "line 3: a.png is of class 'y', on line 2 of 'x'; an image has one class"),
        ("file,label\n../a.png,x\n", "line 2: names '../a.png', which is not a path inside"),
        ('file,label\n"a.png,x\n', r"no CSV \(unexpected end of data\)"),
    ],
)
def test_tables_that_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        write_class_folders(table.read_table(tmp_path / "labels.csv", table.Columns()), tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"--images names that of the images"):
        table.read_table(tmp_path / "labels.csv", table.Columns(), images=tmp_path / "nowhere")


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"read by pyarrow, which is not installed .*`pip install pyarrow`"):
        huggingface.read_huggingface(tmp_path, huggingface.Columns())


def content_of(kind: str, shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (4, 3), shade).save(file, format=kind)
    return file.getvalue()


def make_table(images: list[Any], labels: list[Any], *, features: dict[str, Any] | None) -> Any:
    arrow = pytest.importorskip("pyarrow")
    image = arrow.array(images, arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())]))
    made = arrow.table({"image": image, "label": arrow.array(labels)})
    info = json.dumps({"info": {"features": features}}) if features else "{}"
    return made.replace_schema_metadata({"huggingface": info})


def rows() -> tuple[list[Any], list[Any]]:
    images = [
        {"bytes": content_of("PNG", 10), "path": "a.png"},
        {"bytes": content_of("JPEG", 20), "path": None},
        {"bytes": None, "path": "/elsewhere/c.png"},
        {"bytes": b"no image", "path": None},
        {"bytes": content_of("GIF", 30), "path": None},
        {"bytes": content_of("PNG", 40), "path": None},
    ]
    return images, [0, 1, 0, 0, 0, -1]


def save_to_disk(folder: Path, made: Any) -> None:
    """Write what `Dataset.save_to_disk` writes."""
    arrow = pytest.importorskip("pyarrow")
    folder.mkdir(parents=True)
    path = str(folder / "data-00000-of-00001.arrow")
    with arrow.OSFile(path, "wb") as sink, arrow.ipc.new_stream(sink, made.schema) as stream:
        stream.write_table(made, max_chunksize=2)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": folder.name}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))


def write_parquet(folder: Path, name: str, made: Any) -> None:
    pytest.importorskip("pyarrow.parquet").write_table(made, folder / name)


@pytest.mark.parametrize("form", ["parquet", "folders", "arrow"])
def test_hugging_face(form: str, tmp_path: Path) -> None:
    train = make_table(*rows(), features=FEATURES)
    val = make_table(rows()[0][:1], [1], features=FEATURES)
    data = tmp_path / "set"
    data.mkdir()
    if form == "parquet":
        write_parquet(data, "train-00000-of-00002.parquet", train.slice(0, 1))
        write_parquet(data, "train-00001-of-00002.parquet", train.slice(1))
        write_parquet(data, "validation-00000-of-00001.parquet", val)
    elif form == "folders":
        for split, made in (("train", train), ("validation", val)):
            (data / split).mkdir()
            write_parquet(data / split, "0000.parquet", made)
    else:
        save_to_disk(data / "train", train)
        save_to_disk(data / "validation", val)
        (data / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    lines = write_class_folders(huggingface.read_huggingface(data, huggingface.Columns()), tmp_path / "out")
    assert [name for name in written(tmp_path / "out") if name.count("/") > 1] == [
        "train/a_b/",
        "train/a_b/00000001.jpg",
        "train/cat/",
        "train/cat/00000000.png",
        "val/a_b/",
        "val/a_b/00000000.png",
        "val/cat/",
    ]
    assert (tmp_path / "out/train/cat/00000000.png").read_bytes() == content_of("PNG", 10)
    assert lines[:3] == [
        "train: 2 images of 2 classes, of split 'train'",
        "val: 1 images of 2 classes, of split 'validation'",
        "names of classes that no folder can have, changed: 1 ('a/b' to 'a_b')",
    ]
    for line, what in zip(
        lines[3:], ("without an image's bytes", "cannot be read", "format", "without a class"), strict=True
    ):
        assert what in line and "left out: 1 (" in line


def test_labels_of_text(tmp_path: Path) -> None:
    images = rows()[0][:2]
    write_parquet(tmp_path, "train.parquet", make_table(images, ["dog", "cat"], features=None))
    found = huggingface.read_huggingface(tmp_path / "train.parquet", huggingface.Columns(label="label"))
    assert found.classes == ("cat", "dog")
    lines = write_class_folders(found, tmp_path / "out")
    assert lines[0] == "train: 2 images of 2 classes, of split 'train'"
    assert "no images for validation: `python tools/hold_out.py train_cls" in lines[1]
    assert (tmp_path / "out/train/dog/00000000.png").is_file()


def test_sets_of_hugging_face_that_are_refused(tmp_path: Path) -> None:
    read = huggingface.read_huggingface
    images = rows()[0][:2]
    path = tmp_path / "train.parquet"
    write_parquet(tmp_path, path.name, make_table(images, [0, 2], features=FEATURES))
    with pytest.raises(ValueError, match=r"train\.parquet, row 1: class 2; the features name 2, from 0"):
        write_class_folders(read(path, huggingface.Columns()), tmp_path / "out")
    with pytest.raises(
        ValueError, match=r"--columns.label image; its columns are image \(struct<.*>\), label \(int64\)"
    ):
        read(path, huggingface.Columns(label="image"))
    write_parquet(tmp_path, path.name, make_table(images, [0, 1], features=None))
    with pytest.raises(ValueError, match=r"0 columns could hold the labels; .* Name one with --columns.label"):
        read(path, huggingface.Columns())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"train\.parquet: cannot be read \(.*; it may be truncated"):
        read(path, huggingface.Columns())
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"holds . A folder of `save_to_disk` has dataset_dict.json"):
        read(tmp_path, huggingface.Columns())
    save_to_disk(tmp_path / "set", make_table(images, [0, 1], features=FEATURES))
    path = tmp_path / "set/data-00000-of-00001.arrow"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(ValueError, match=r"00001\.arrow: cannot be read \(.*; it may be truncated"):
        write_class_folders(read(tmp_path / "set", huggingface.Columns()), tmp_path / "out")
    (tmp_path / "set/state.json").write_text('{"_data_files": [{"filename": "../x.arrow"}]}')
    with pytest.raises(ValueError, match=r"names '../x.arrow', which is not a path inside"):
        read(tmp_path / "set", huggingface.Columns())
