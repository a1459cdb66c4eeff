"""A part of the training images set aside: what a learning rate is chosen on, so that no test image takes part.

Images are chosen by the hash of their names (of each class alike, in a folder of classes), so the choice depends on no
order of files. Nothing is copied: the new folder holds links, and for COCO two shorter annotation files, each with its
digest beside it.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from files.digest import check_beside, write_beside
from files.naming import refuse_overwriting, refuse_within, system_part
from files.parsing import read_json
from files.typed import from_json
from files.writing import link_or_copy, new_folder

Layout = Literal["ade20k", "folder"]
NOTE = "held_out.json"
PATHS, NOTHING = ("data", "train_json"), "None"  # of a note
COCO = ("train2017", "val2017")
LABELS = {"ade20k": ("annotations", "training", "validation"), "folder": ("labels", "train", "val")}


@dataclass(frozen=True, kw_only=True)
class HoldOut:
    """What is split, and how."""

    tool: Literal["train_cls", "train_det", "train_seg"]
    data: Path
    share: float
    train_split: str | None = None
    train_json: Path | None = None
    layout: str | None = None


@dataclass(frozen=True, kw_only=True)
class CocoImage:
    """Of an image of a COCO file, what a division needs."""

    id: int | str


@dataclass(frozen=True, kw_only=True)
class CocoAnnotation:
    """Of an annotation of a COCO file, what a division needs."""

    image_id: int | str


@dataclass(frozen=True, kw_only=True)
class CocoIds:
    """Of a COCO file, what a division needs."""

    images: tuple[CocoImage, ...]
    annotations: tuple[CocoAnnotation, ...]

    def __post_init__(self) -> None:
        """Raise ValueError for ids that come twice, also as a number and its text: images are chosen by that text."""
        ids = Counter(str(image.id) for image in self.images)
        if twice := [name for name, count in ids.items() if count > 1]:
            raise ValueError(f"images: id {twice[0]!r} comes {ids[twice[0]]} times ({len(twice)} such ids)")


def hold_out(wanted: HoldOut, out: Path) -> str:
    """Write `out` in the layout that the tool reads, training images and held-out ones as its two usual splits.

    Returns a sentence with the counts; nothing is done where `out` holds the same already. Raises FileNotFoundError or
    ValueError for data that cannot be split, and where `out` holds something else or annotations that have changed.
    """
    _refuse_over_images(wanted, out)
    note = _note(asdict(wanted))
    if out.exists():
        if (out / NOTE).is_file() and _note(read_json(out / NOTE)) == note:
            for path in (out / "annotations").glob("instances_*.json"):
                _check(path, out)
            return f"{out}: there already."
        raise ValueError(f"{out}: holds something else than {wanted.share:g} of {wanted.data}; remove that folder.")
    with new_folder(out) as temporary:
        counts = {"train_cls": _classes, "train_det": _coco, "train_seg": _maps}[wanted.tool](wanted, temporary)
        (temporary / NOTE).write_text(json.dumps(note, indent=1), encoding="utf-8")
    return f"{out}: {counts[0]} images to train on, {counts[1]} held out."


def _note(wanted: Any) -> dict[str, str]:
    """Return what is split, and how, as text; its paths as they are from any folder, links followed.

    Of a note that somebody has changed, too, which is then another.
    """
    found = {name: str(value) for name, value in wanted.items()} if isinstance(wanted, dict) else {}
    paths = {name: os.path.realpath(found[name]) for name in PATHS if found.get(name, NOTHING) != NOTHING}
    return found | paths


def _refuse_over_images(wanted: HoldOut, out: Path) -> None:
    """Raise ValueError where `out` is the data, or lies among the images that are divided."""
    refuse_overwriting([out], [wanted.data, *([wanted.train_json] if wanted.train_json else [])])
    if wanted.tool != "train_seg":
        usual = "train" if wanted.tool == "train_cls" else "train2017"
        refuse_within(out, [wanted.data / (wanted.train_split or usual)])
    elif wanted.layout is None or wanted.layout in LABELS:
        maps, train, _ = LABELS[wanted.layout or "ade20k"]
        refuse_within(out, [wanted.data / kind / (wanted.train_split or train) for kind in ("images", maps)])


def _check(path: Path, out: Path) -> None:
    try:
        check_beside(path)
    except ValueError as error:
        raise ValueError(f"{error} Or remove the folder {out}, which is made anew.") from error


def held_out_names(names: Sequence[str], share: float) -> set[str]:
    """Return the share of the names that is held out, at least one. Raises ValueError where none would be left."""
    count = max(1, round(share * len(names)))
    if count >= len(names):
        raise ValueError(f"{share:g} of {len(names)} training images is held out, so none is left; give less.")
    return set(sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[:count])


def _classes(wanted: HoldOut, out: Path) -> tuple[int, int]:
    root = _folder(wanted.data / (wanted.train_split or "train"))
    kept, held = 0, 0
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not system_part(f"{path.name}/")):
        paths = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        names = [name for name in paths if not system_part(name)]
        if not names:
            continue
        away = held_out_names(names, wanted.share)
        for name in names:
            link_or_copy(folder / name, out / ("val" if name in away else "train") / folder.name / name)
        kept, held = kept + len(names) - len(away), held + len(away)
    if not held:
        raise ValueError(f"{root}: no image in a folder per class.")
    return kept, held


def _coco(wanted: HoldOut, out: Path) -> tuple[int, int]:
    split = wanted.train_split or "train2017"
    path = wanted.train_json or wanted.data / "annotations" / f"instances_{split}.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such annotations; give --train-json or --train-split.")
    check_beside(path)
    whole: dict[str, Any] = read_json(path)
    try:
        from_json(CocoIds, _picked(whole))
    except ValueError as error:
        raise ValueError(f"{path}: no COCO annotations that can be divided ({error}).") from error
    try:
        away = held_out_names([str(image["id"]) for image in whole["images"]], wanted.share)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    folders = _image_folders(wanted.data, split, path, whole["images"])
    refuse_within(out, folders.values())
    for name, folder in folders.items():
        link_or_copy(folder, out / name)
    for name, inside in zip(COCO, (False, True), strict=True):
        images = [image for image in whole["images"] if (str(image["id"]) in away) == inside]
        ids = {image["id"] for image in images}
        part = {**whole, "images": images, "annotations": [a for a in whole["annotations"] if a["image_id"] in ids]}
        target = out / "annotations" / f"instances_{name}.json"
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(part), encoding="utf-8")
        write_beside(target)
    return len(whole["images"]) - len(away), len(away)


def _image_folders(data: Path, split: str, path: Path, images: Sequence[dict[str, Any]]) -> dict[str, Path]:
    """Return the folders that hold the images of annotations, by their names beside the new annotations.

    That of the split stands there for both splits. Where there is none they are those that the names of the images
    begin with (LVIS: `train2017/9.jpg`), in the data or beside the file, as they are looked for in training. Raises
    FileNotFoundError.
    """
    tops = {name.partition("/")[0] if "/" in name else "" for name in map(_name, images)}
    if not (data / split).is_dir() and not tops & {"", ".", "..", "annotations"}:
        for root in (data, path.parent):
            if all((root / top).is_dir() for top in tops):
                return {top: root / top for top in sorted(tops)}
    return dict.fromkeys(COCO, _folder(data / split))


def _name(image: dict[str, Any]) -> str:
    """Return the file name of an image, of LVIS from its address, as detection/data/coco_file.py takes it."""
    name, url = image.get("file_name"), image.get("coco_url")
    if "file_name" not in image and isinstance(url, str):
        name = "/".join(url.split("/")[-2:])
    return name if isinstance(name, str) else ""


def _picked(whole: Any) -> Any:
    """Return of a COCO file what CocoIds has: other fields are kept as they are."""
    if not isinstance(whole, dict):
        return whole
    found: dict[str, Any] = {}
    for name, key in (("images", "id"), ("annotations", "image_id")):
        if isinstance(whole.get(name), list):
            found[name] = [{k: v for k, v in i.items() if k == key} if isinstance(i, dict) else i for i in whole[name]]
        elif name in whole:
            found[name] = whole[name]
    return found


def _maps(wanted: HoldOut, out: Path) -> tuple[int, int]:
    layout = wanted.layout or "ade20k"
    if layout not in LABELS:
        raise ValueError(
            f"layout {layout}: a part can be held out of {' and '.join(LABELS)} alone; let the search name "
            "other images by `data` or `val_split`."
        )
    maps, train, val = LABELS[layout]
    split = wanted.train_split or train
    files = {kind: _files(wanted.data / kind / split) for kind in ("images", maps)}
    away = held_out_names(sorted(files["images"]), wanted.share)
    for kind, found in files.items():
        for stem, path in found.items():
            inside = path.relative_to(wanted.data / kind / split)
            link_or_copy(path, out / kind / (val if stem in away else train) / inside)
    for path in (*wanted.data.glob("objectInfo*.txt"), *wanted.data.glob("classes.txt")):
        link_or_copy(path, out / path.name)
    return len(files["images"]) - len(away), len(away)


def _files(folder: Path) -> dict[str, Path]:
    """Return the files below a folder by their paths without the ending."""
    found = sorted(path for path in _folder(folder).rglob("*") if path.is_file() and not path.name.startswith("."))
    below = {path: str(path.relative_to(folder)) for path in found}
    return {str(Path(name).with_suffix("")): path for path, name in below.items() if not system_part(name)}


def _folder(path: Path) -> Path:
    if not path.is_dir():
        hint = ", and --layout how maps are laid out" if path.parent.name == "images" else ""
        raise FileNotFoundError(f"{path}: no such folder; --data and --train-split name the training images{hint}.")
    return path
