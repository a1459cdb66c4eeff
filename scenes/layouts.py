"""The scenes as files in the layouts of ImageNet (ImageFolder), COCO and ADE20K.

    imagenet/{train,val,test}/<category>/<image id>.jpg
    coco/{train2017,val2017,test2017}/<image id>.jpg
    coco/annotations/instances_{train2017,val2017,test2017}.json
    ade20k/images/{training,validation,test}/<image id>.jpg
    ade20k/annotations/{training,validation,test}/<image id>.png
    ade20k/objectInfo<number of classes>.txt
    scenes.json

Each split is one list of scenes from a seed of its own: the classification layout takes the first of them
(`classify_*` in number), the dense layouts too (`dense_*`). A scene has one image id and one JPEG for all.
Files are written to a temporary folder that is renamed at the end, so a folder with scenes.json is complete.
"""

import hashlib
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL import Image

from files.parsing import read_json
from files.typed import from_json
from files.writing import new_folder
from scenes.classes import IGNORE, WORLDS, World
from scenes.config import IDS_PER_SPLIT, SPLITS, VERSION, ScenesConfig, Split, WorldName, image_id, split_seed
from scenes.polygons import mask_to_polygons
from scenes.scene import Instance, canvas_size, render_scene

JPEG_QUALITY = 95


@dataclass(frozen=True, kw_only=True)
class ScenesIndex:
    """A finished folder of scenes."""

    root: Path
    config: ScenesConfig
    digest: str
    """sha256 over the names and bytes of all images and annotations."""

    @property
    def imagenet(self) -> Path:
        """Folder with train/, val/ and test/, one folder of images per category in each."""
        return self.root / "imagenet"

    @property
    def coco(self) -> Path:
        """Folder with train2017/, val2017/, test2017/ and annotations/."""
        return self.root / "coco"

    @property
    def ade20k(self) -> Path:
        """Folder with images/ and annotations/."""
        return self.root / "ade20k"


@dataclass(frozen=True, kw_only=True)
class Note:
    """What scenes.json says of its folder."""

    version: int
    config: dict[str, Any]
    digest: str
    """SHA-256 over all files."""
    stuff: tuple[str, ...] = ()
    things: tuple[str, ...] = ()


def write_scenes(out: Path, config: ScenesConfig) -> ScenesIndex:
    """Return the index of the scenes in `out`, which are written unless the same ones are already there.

    Raises ValueError for counts, sizes or seeds that make no data set, and FileExistsError when `out` holds
    anything else: scenes of another config, or files that are not scenes.
    """
    world = _checked(config)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        return _open_same(out, config)
    with new_folder(out) as partial:
        files = _Files(partial)
        train, val, _ = [_write_split(files, split, config, world) for split in SPLITS]
        files.add(_object_info_path(world), _object_info(train, val, world).encode())
        digest = files.digest()
        record: dict[str, Any] = {
            "version": VERSION,
            "config": asdict(config),
            "digest": digest,
            "stuff": [kind.name for kind in world.stuff],
            "things": [kind.name for kind in world.things],
        }
        files.add("scenes.json", _json_bytes(record))
    return ScenesIndex(root=out, config=config, digest=digest)


class _Files:
    """Writes below one folder and keeps a digest of what it wrote."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._hash = hashlib.sha256()

    def add(self, name: str, content: bytes) -> None:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self._hash.update(f"{name} {len(content)}\n".encode())
        self._hash.update(content)

    def digest(self) -> str:
        return self._hash.hexdigest()


def _checked(config: ScenesConfig) -> World:
    """Return the world that is named; ValueError for what makes no data set."""
    canvas_size(config.image_size)
    if config.world not in WORLDS:
        raise ValueError(f"no world of scenes is called {config.world!r}; there are {', '.join(get_args(WorldName))}.")
    world = WORLDS[config.world]
    least = len(world.things)
    if config.seed < 0:
        raise ValueError(f"seed {config.seed}: scenes are numbered from seed 0 on; pass 0 or more.")
    for split in SPLITS:
        classify, dense = config.counts.classify(split), config.counts.dense(split)
        if not least <= classify <= IDS_PER_SPLIT:
            raise ValueError(
                f"classify_{split.name}={classify}: needs {least} (one image per category, or "
                f"ImageFolder would number the classes differently in each split) to {IDS_PER_SPLIT} images."
            )
        if not 1 <= dense <= IDS_PER_SPLIT:
            raise ValueError(f"dense_{split.name}={dense}: needs 1 to {IDS_PER_SPLIT} images.")
    return world


def _open_same(out: Path, config: ScenesConfig) -> ScenesIndex:
    """Return the index of the finished folder; FileExistsError unless it was written with this config."""
    path = out / "scenes.json"
    if not path.is_file():
        raise FileExistsError(
            f"{out} is not empty and has no scenes.json, so it is no finished folder of scenes; "
            "pass a new folder, or remove this one."
        )
    try:
        note = from_json(Note, read_json(path))
    except ValueError as error:
        raise ValueError(
            f"{path}: not the note of a folder of scenes ({error}); remove {out}, and the scenes are made anew."
        ) from error
    wanted = json.loads(_json_bytes({"version": VERSION, "config": asdict(config)}))
    # a note from before there were worlds names none
    found = {"version": note.version, "config": {"world": ScenesConfig().world, **note.config}}
    if found != wanted:
        raise FileExistsError(
            f"{out} holds other scenes: found {json.dumps(found)}, asked for {json.dumps(wanted)}; "
            "pass a new folder, the same settings, or remove this one."
        )
    if _digest(out, config) != note.digest:
        raise ValueError(
            f"{out}: its files are not those that were written (the digest of scenes.json is of others): one is "
            "damaged, missing or was changed. Remove that folder, and the same scenes are made anew."
        )
    return ScenesIndex(root=out, config=config, digest=note.digest)


def _digest(out: Path, config: ScenesConfig) -> str:
    """Return the digest of the files of a finished folder, in the order in which they were written."""
    found = hashlib.sha256()
    pictured = {path.stem: path for path in sorted((out / "imagenet").glob("*/*/*.jpg"))}
    for split in SPLITS:
        classify, dense = config.counts.classify(split), config.counts.dense(split)
        for index in range(max(classify, dense)):
            stem = f"{image_id(split, index):012d}"
            if index < classify:
                _take(found, out, pictured.get(stem, out / "imagenet" / f"{stem}.jpg"))
            if index < dense:
                _take(found, out, out / f"coco/{split.coco}/{stem}.jpg")
                _take(found, out, out / f"ade20k/images/{split.ade20k}/{stem}.jpg")
                _take(found, out, out / f"ade20k/annotations/{split.ade20k}/{stem}.png")
        _take(found, out, out / f"coco/annotations/instances_{split.coco}.json")
    _take(found, out, out / _object_info_path(WORLDS[config.world]))
    return found.hexdigest()


def _take(found: Any, out: Path, path: Path) -> None:
    content = path.read_bytes() if path.is_file() else b""
    found.update(f"{path.relative_to(out).as_posix()} {len(content)}\n".encode())
    found.update(content)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Presence:
    """How often each semantic id 0, 1, 2, ... occurs in the dense images of a split."""

    images: np.ndarray
    pixels: np.ndarray


def _write_split(files: _Files, split: Split, config: ScenesConfig, world: World) -> _Presence:
    classify, dense = config.counts.classify(split), config.counts.dense(split)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    ids = 1 + len(world.semantic_names)
    presence = _Presence(images=np.zeros(ids, dtype=np.int64), pixels=np.zeros(ids, dtype=np.int64))
    for index in range(max(classify, dense)):
        scene = render_scene(world, split_seed(config.seed, split), index, config.image_size)
        number = image_id(split, index)
        stem, jpeg = f"{number:012d}", _jpeg_bytes(scene.image_HW3)
        if index < classify:
            files.add(f"imagenet/{split.name}/{scene.main.category.name}/{stem}.jpg", jpeg)
        if index < dense:
            files.add(f"coco/{split.coco}/{stem}.jpg", jpeg)
            files.add(f"ade20k/images/{split.ade20k}/{stem}.jpg", jpeg)
            files.add(f"ade20k/annotations/{split.ade20k}/{stem}.png", _png_bytes(scene.semantic_HW))
            images.append(_coco_image(number, f"{stem}.jpg", config.image_size))
            for instance in scene.instances:
                identifier = split.number * IDS_PER_SPLIT + len(annotations) + 1
                annotations.append(_coco_annotation(identifier, number, instance))
            pixels = np.bincount(scene.semantic_HW.ravel(), minlength=ids)
            presence.images[:] += pixels > 0
            presence.pixels[:] += pixels
    content = {
        "info": {"description": f"Procedural scenes, {split.name}", "version": str(VERSION)},
        "licenses": [{"id": 1, "name": "Generated by this project, under its licence", "url": ""}],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": kind.coco_id, "name": kind.name, "supercategory": "thing"} for kind in world.things],
    }
    files.add(f"coco/annotations/instances_{split.coco}.json", _json_bytes(content))
    return presence


def _coco_image(number: int, file_name: str, size: tuple[int, int]) -> dict[str, Any]:
    return {"id": number, "file_name": file_name, "height": size[0], "width": size[1], "license": 1}


def _coco_annotation(identifier: int, image: int, instance: Instance) -> dict[str, Any]:
    return {
        "id": identifier,
        "image_id": image,
        "category_id": instance.category.coco_id,
        "segmentation": mask_to_polygons(instance.mask_HW),
        "area": float(instance.area),
        "bbox": [float(value) for value in instance.box_xywh],
        "iscrowd": 0,
    }


def _object_info_path(world: World) -> str:
    return f"ade20k/objectInfo{len(world.semantic_names)}.txt"


def _object_info(train: _Presence, val: _Presence, world: World) -> str:
    """Return ADE20K's table of classes: share of labelled pixels, images of train and val with the class."""
    pixels = train.pixels + val.pixels
    ratios = pixels / pixels[IGNORE + 1 :].sum()
    rows = ["Idx\tRatio\tTrain\tVal\tName"]
    for number, name in enumerate(world.semantic_names, start=1):
        rows.append(f"{number}\t{ratios[number]:.4f}\t{train.images[number]}\t{val.images[number]}\t{name}")
    return "\n".join(rows) + "\n"


def _jpeg_bytes(image_HW3: np.ndarray) -> bytes:
    # Full-resolution chroma: at 64 pixels, halved chroma would smear the hues that tell classes apart.
    buffer = io.BytesIO()
    Image.fromarray(image_HW3).save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _png_bytes(semantic_HW: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(semantic_HW).save(buffer, format="PNG")
    return buffer.getvalue()


def _json_bytes(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()
