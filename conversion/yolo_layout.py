"""Where a YOLO data set keeps its images and labels: `data.yaml` (Ultralytics, Roboflow), or a list of classes alone.

`names` is a list or a mapping from numbers; `train`, `val` and `test` are folders, lists of folders, or text files with
an image a line. A label file lies where `images` in the path of its image is replaced by `labels`, or beside its image.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from detection.data.coco_fields import shown
from detection.data.defects import Tally, some
from files.naming import inside
from files.parsing import read_text, read_yaml

SPLITS = ("train", "val", "valid", "test")
USED = {"path", "names", "nc", "kpt_shape", *SPLITS}
CLASS_LISTS = ("classes.txt", "obj.names", "predefined_classes.txt")
LAYOUT = "A YOLO data set has a data.yaml, or classes.txt (a name a line), images/ and labels/."


@dataclass(frozen=True, kw_only=True)
class YoloLayout:
    """What is read where."""

    file: Path
    """That names the classes."""
    root: Path
    """That all paths are below."""
    names: tuple[str, ...]
    splits: dict[str, tuple[Path, ...]]
    """Folders of images, or text files that list them."""
    keypoints: int = 0
    """Numbers of keypoints behind each box, which are left out."""


def read_layout(data: Path, tally: Tally, *, root: Path | None = None) -> YoloLayout:
    """Return the layout of a folder, or of a .yaml file; `root` is what paths in it are below.

    Raises ValueError and FileNotFoundError that name the file, the entry and the way out.
    """
    file = data if data.is_file() else _yaml_in(data)
    if file is None:
        return _without_yaml(data, tally)
    content = read_yaml(file)
    if not isinstance(content, dict) or "names" not in content:
        raise ValueError(f"{file}: has no `names`, the classes of the data set. {LAYOUT}")
    names = _names(content["names"], file)
    if (count := content.get("nc", len(names))) != len(names):
        raise ValueError(f"{file}: `nc` is {shown(count)} and `names` lists {len(names)} classes; correct one.")
    for key in sorted(map(str, content.keys() - USED)):
        tally.add(f"entries of {file.name} that have no place in COCO's format, left out", key)
    root = root or _root(content.get("path"), file, tally)
    splits = {}
    for key in (key for key in SPLITS if content.get(key)):
        try:
            splits[key] = _places(content[key], key, file, root, tally)
        except FileNotFoundError:
            if key != "test" or not splits:
                raise
            tally.add(f"`test` of {file.name} left out: there is no such folder", shown(content[key]))
    if not splits:
        raise ValueError(f"{file}: names no images; `train` and `val` are folders below {root}. {LAYOUT}")
    return YoloLayout(
        file=file, root=root, names=names, splits=splits, keypoints=_keypoints(content.get("kpt_shape"), file)
    )


def label_path(image: PurePosixPath) -> PurePosixPath:
    """Return the path of an image's labels, both below the root: the last `images` in it becomes `labels`."""
    parts = list(image.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return PurePosixPath(*parts).with_suffix(".txt")


def _yaml_in(folder: Path) -> Path | None:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder or file. {LAYOUT}")
    found = sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml") and path.is_file())
    usual = [path for path in found if path.stem in ("data", "dataset")]
    if len(found) > 1 and len(usual) != 1:
        raise ValueError(f"{folder}: holds {some(path.name for path in found)}; name the one to read instead of it.")
    return next(iter(usual or found), None)


def _without_yaml(folder: Path, tally: Tally) -> YoloLayout:
    file = next((folder / name for name in CLASS_LISTS if (folder / name).is_file()), None)
    images = folder / "images"
    if file is None or not images.is_dir():
        raise FileNotFoundError(f"{folder}: holds {some(sorted(path.name for path in folder.iterdir()))}. {LAYOUT}")
    names = tuple(line.strip() for line in read_text(file).splitlines() if line.strip())
    if not names:
        raise ValueError(f"{file}: lists no class; write a name a line, the first for class 0.")
    below: dict[str, tuple[Path, ...]] = {name: (images / name,) for name in SPLITS if (images / name).is_dir()}
    for path in sorted(images.iterdir()) if below else ():
        if path.name not in below:
            tally.add(f"entries of images/ beside {' and '.join(below)}, left out", path.name)
    return YoloLayout(file=file, root=folder, names=names, splits=below or {"train": (images,)})


def _names(value: Any, file: Path) -> tuple[str, ...]:
    listed = value
    if isinstance(value, dict):
        if sorted(value, key=str) != sorted(range(len(value)), key=str):
            raise ValueError(f"{file}: `names` has the keys {some(map(shown, value))}; they are 0, 1, 2 and so on.")
        listed = [value[number] for number in range(len(value))]
    if not isinstance(listed, list) or not listed:
        raise ValueError(f"{file}: `names` is {shown(value)}; it is a list of the classes' names, or {{0: name, ...}}.")
    if other := [name for name in listed if type(name) not in (str, int)]:
        raise ValueError(
            f"{file}: `names` has {shown(other[0])}, which YAML does not take for text; write it in quotes."
        )
    return tuple(map(str, listed))


def _keypoints(shape: Any, file: Path) -> int:
    if shape is None:
        return 0
    if not isinstance(shape, list) or len(shape) != 2 or not all(type(n) is int and 0 < n <= 1000 for n in shape):
        raise ValueError(f"{file}: `kpt_shape` is {shown(shape)}; it is two numbers, as [17, 3].")
    return int(shape[0] * shape[1])


def _root(path: Any, file: Path, tally: Tally) -> Path:
    """Return the folder that paths are below: `path` where it is a folder below that of the file, else the latter."""
    if path in (None, "", "."):
        return file.parent
    if isinstance(path, str) and ".." not in PurePosixPath(path).parts and not PurePosixPath(path).is_absolute():
        below = inside(file.parent, path, source=file, links=True)
        if below.is_dir():
            return below
    tally.add(f"`path` of {file.name} not followed, its own folder taken (--root names another)", shown(path))
    return file.parent


def _places(value: Any, key: str, file: Path, root: Path, tally: Tally) -> tuple[Path, ...]:
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) and entry for entry in entries):
        raise ValueError(f"{file}: `{key}` is {shown(value)}; it is a folder, a list of folders, or a text file.")
    places = []
    for entry in entries:
        name = entry.replace("\\", "/")
        while name.startswith(("./", "../")):
            if name.startswith("../"):
                tally.add(f"`../` of {file.name}'s paths left out (Roboflow writes it before its own folders)", entry)
            name = name.partition("/")[2]
        try:
            place = inside(root, name, source=file, links=True)
        except ValueError as error:
            raise ValueError(
                f"{error} Or give --root, the folder that `{key}` is below, and a path below it."
            ) from error
        if not place.exists():
            raise FileNotFoundError(
                f"{place}: not there, though `{key}` of {file} names it ({entry}); --root names the folder that its "
                "paths are below."
            )
        places.append(place)
    return tuple(places)
