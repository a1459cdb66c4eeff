"""Hugging Face `datasets` on a disk: folders of `save_to_disk` (Arrow) and of the Hub (Parquet), with images in them.

An image is a struct of `bytes` and `path`, its label a ClassLabel, whose names are in the features, or text. pyarrow
reads both; the package `datasets` is not needed, and no script of a data set is run.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from conversion.class_folders import Labelled, LabelledSet
from detection.data.coco_fields import shown
from detection.data.defects import Tally, some
from engine.images.file import UnreadableImageError, opened
from files.naming import inside
from files.parsing import parse_json, read_json

AT_ONCE = 16  # rows of a Parquet file that are held
ENDINGS = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif", "PPM": ".ppm"}
LAYOUT = "A folder of `save_to_disk` has dataset_dict.json or state.json; one of the Hub has *.parquet."
SPLIT_OF_FILE = re.compile(r"^([A-Za-z0-9_]+?)(?:-\d+-of-\d+)?(?:-[0-9a-f]{16})?$")  # train-00000-of-00002


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns, where a data set has several that could be meant."""

    image: str | None = None
    """Column of the images; the only one unless given."""
    label: str | None = None
    """Column of the classes; the only ClassLabel unless given."""


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One file of a split."""

    path: Path
    features: dict[str, Any]
    """As `datasets` describes the columns."""
    is_parquet: bool


def read_huggingface(data: Path, columns: Columns) -> LabelledSet:
    """Return the data set of a folder, or of one .parquet file.

    Raises ImportError where pyarrow is not installed, FileNotFoundError for another layout, and ValueError, also while
    its images are read, that names the file and the column or row.
    """
    arrow = _pyarrow()
    splits = _parquet(data, arrow) or _saved(data)
    if not splits:
        holds = some(sorted(path.name for path in data.iterdir())) if data.is_dir() else "nothing: no such folder"
        raise FileNotFoundError(f"{data}: holds {holds}. {LAYOUT}")
    first = next(iter(splits.values()))[0]
    image, label = _chosen(first, columns, arrow)
    names = _names(first.features.get(label))
    classes = names or _texts(splits, label, arrow)
    tally = Tally()
    found = {name: _images(parts, image, label, classes, tally, arrow) for name, parts in splits.items()}
    for part in (part for parts in splits.values() for part in parts):
        if names != _names(part.features.get(label)):
            raise ValueError(f"{part.path}: names other classes than {first.path}; splits must have the same.")
    return LabelledSet(classes=classes, splits=found, tally=tally)


def _pyarrow() -> ModuleType:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            f"data sets of Hugging Face are read by pyarrow, which is not installed ({error}). Install it with "
            "`pip install pyarrow`, or `pip install -e .[parquet]` in the checkout."
        ) from error
    return pyarrow


def _parquet(data: Path, arrow: ModuleType) -> dict[str, list[_Part]]:
    files = [data] if data.is_file() else sorted(data.rglob("*.parquet"))
    found: dict[str, list[_Part]] = {}
    for path in files:
        match = SPLIT_OF_FILE.match(path.stem)
        name = match[1] if match else path.stem
        if path.stem.isdigit():  # 0000.parquet, in a folder called as its split
            name = "train" if path.parent in (data, data.parent) else path.parent.name
        with _named(path, arrow):
            metadata = arrow.parquet.read_schema(path).metadata or {}
        text = metadata.get(b"huggingface")
        content = parse_json(text, f"{path}: its metadata") if text else {}
        features = _features(content.get("info") if isinstance(content, dict) else None)
        found.setdefault(name, []).append(_Part(path=path, features=features, is_parquet=True))
    return found


def _saved(data: Path) -> dict[str, list[_Part]]:
    """Return the splits of a folder that `save_to_disk` wrote."""
    index = data / "dataset_dict.json"
    if index.is_file():
        listed = read_json(index)
        names = listed.get("splits") if isinstance(listed, dict) else None
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{index}: has no list `splits`. {LAYOUT}")
        folders = {name: inside(data, name, source=index, links=True) for name in names}
    elif (data / "state.json").is_file():
        state = read_json(data / "state.json")
        split = state.get("_split") if isinstance(state, dict) else None
        folders = {split if isinstance(split, str) and split else "train": data}
    else:
        return {}
    return {name: _arrow_files(folder) for name, folder in folders.items()}


def _arrow_files(folder: Path) -> list[_Part]:
    path = folder / "state.json"
    state = read_json(path)
    if isinstance(state, dict) and state.get("_indices_data_files"):
        raise ValueError(f"{path}: rows are chosen by an index of older versions of `datasets`; save the set again.")
    try:
        names = [entry["filename"] for entry in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: has no list `_data_files` of files. {LAYOUT}") from error
    features = _features(read_json(folder / "dataset_info.json"))
    return [
        _Part(path=inside(folder, name, source=path, links=True), features=features, is_parquet=False) for name in names
    ]


def _features(info: Any) -> dict[str, Any]:
    features = info.get("features") if isinstance(info, dict) else None
    return features if isinstance(features, dict) else {}


def _names(feature: Any) -> tuple[str, ...]:
    names = feature.get("names") if isinstance(feature, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _chosen(part: _Part, columns: Columns, arrow: ModuleType) -> tuple[str, str]:
    """Return the columns of images and labels. Raises ValueError that lists the columns where they are not plain."""
    with _opened(part, arrow, None) as (schema, _):
        types = {field.name: field.type for field in schema}
    is_image = {name: _holds_images(kind, arrow) for name, kind in types.items()}
    is_label = {
        name: bool(_names(part.features.get(name))) or arrow.types.is_string(kind) or arrow.types.is_large_string(kind)
        for name, kind in types.items()
    }
    labelled = [name for name in types if _names(part.features.get(name))]
    picks = []
    for flag, wanted, fits, likely in (
        ("image", columns.image, is_image, [name for name, fit in is_image.items() if fit]),
        ("label", columns.label, is_label, labelled),
    ):
        if wanted is None and len(likely) == 1:
            wanted = likely[0]
        if wanted is None or not fits.get(wanted):
            listed = ", ".join(f"{name} ({kind})" for name, kind in types.items())
            asked = f"--columns.{flag} {wanted}" if wanted else f"{len(likely)} columns could hold the {flag}s"
            kind = "a struct of bytes and path" if flag == "image" else "a ClassLabel, or text"
            raise ValueError(f"{part.path}: {asked}; its columns are {listed}. Name one with --columns.{flag}: {kind}.")
        picks.append(wanted)
    return picks[0], picks[1]


def _holds_images(kind: Any, arrow: ModuleType) -> bool:
    return bool(arrow.types.is_struct(kind)) and {"bytes", "path"} <= {
        kind.field(n).name for n in range(kind.num_fields)
    }


def _texts(splits: dict[str, list[_Part]], label: str, arrow: ModuleType) -> tuple[str, ...]:
    """Return the different texts of the label's column, sorted."""
    found = set()
    for part in (part for parts in splits.values() for part in parts):
        for _, (text,) in _rows(part, [label], arrow):
            found |= {text} if isinstance(text, str) and text else set()
    return tuple(sorted(found))


def _images(
    parts: list[_Part], image: str, label: str, classes: tuple[str, ...], tally: Tally, arrow: ModuleType
) -> Iterator[Labelled]:
    number_of = {name: number for number, name in enumerate(classes)}
    before = 0
    for part in parts:
        row = -1
        for row, (value, kind) in _rows(part, [image, label], arrow):
            where = f"{part.path}, row {row:,}"
            number = number_of.get(kind) if isinstance(kind, str) else kind
            if kind in (None, "", -1):
                tally.add("rows without a class (none, or -1), left out", f"{part.path.name}, row {row}")
                continue
            if type(number) is not int or not 0 <= number < len(classes):
                raise ValueError(f"{where}: class {shown(kind)}; the features name {len(classes)}, from 0.")
            content = value.get("bytes") if isinstance(value, dict) else None
            if not isinstance(content, bytes) or not content:
                named = value.get("path") if isinstance(value, dict) else None
                tally.add("rows without an image's bytes, at most with a path, left out", f"{where}: {shown(named)}")
            elif (ending := _ending(content, where, tally)) is not None:
                yield Labelled(label=number, name=f"{before + row:08d}{ending}", content=content, source=where)
        before += row + 1


def _ending(content: bytes, where: str, tally: Tally) -> str | None:
    """Return the ending that an image's format has; None, and counted, for what cannot be read."""
    try:
        with opened(io.BytesIO(content), where) as image:
            kind = image.format
    except UnreadableImageError as error:
        tally.add("images that cannot be read, left out", f"{where} ({error.reason})")
        return None
    if kind not in ENDINGS:
        tally.add("images of a format that is not read, left out", f"{where}: {kind}")
    return ENDINGS.get(str(kind))


def _rows(part: _Part, columns: list[str], arrow: ModuleType) -> Iterator[tuple[int, list[Any]]]:
    """Yield each row's number in the file and its values of the columns."""
    number = 0
    with _opened(part, arrow, columns) as (schema, batches):
        if lacks := [name for name in columns if name not in schema.names]:
            raise ValueError(f"{part.path}: has no column {lacks[0]!r}; it has {', '.join(schema.names)}.")
        for batch in batches:
            found = [batch.column(name) for name in columns]
            for place in range(batch.num_rows):  # row by row: an image's bytes are copied when they are asked for
                yield number, [column[place].as_py() for column in found]
                number += 1


@contextmanager
def _opened(part: _Part, arrow: ModuleType, columns: list[str] | None) -> Iterator[tuple[Any, Iterator[Any]]]:
    """Give the schema of a file and its batches of rows; of a Parquet file those of the columns alone."""
    with _named(part.path, arrow):
        if part.is_parquet:
            with arrow.parquet.ParquetFile(part.path) as file:
                yield file.schema_arrow, file.iter_batches(batch_size=AT_ONCE, columns=columns)
            return
        with arrow.memory_map(str(part.path)) as source, arrow.ipc.open_stream(source) as stream:
            yield stream.schema, iter(stream)


@contextmanager
def _named(path: Path, arrow: ModuleType) -> Iterator[None]:
    """Make what pyarrow raises a ValueError that names the file."""
    try:
        yield
    except (arrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:  # else it is pyarrow's, of a truncated file
            raise
        text = " ".join(str(error).split())[:300]
        raise ValueError(f"{path}: cannot be read ({text}); it may be truncated. Download or save it again.") from error
