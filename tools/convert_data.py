"""Turn a data set into the layout that the tools read: COCO, label maps (--label-maps), or folders of classes.

    python tools/convert_data.py yolo DIR --out data/mine          # data.yaml, or images/ and labels/; polygons too
    python tools/convert_data.py voc DIR --out data/mine           # Annotations/, JPEGImages/, ImageSets/Main/
    python tools/convert_data.py coco DIR --out data/mine          # COCO exports of Roboflow and CVAT
    python tools/convert_data.py cvat DIR --out data/mine          # CVAT for images 1.1
    python tools/convert_data.py cvat DIR --out data/maps --label-maps --background other    # for train_seg
    python tools/convert_data.py huggingface DIR --out data/mine   # of save_to_disk, or Parquet
    python tools/convert_data.py table labels.csv --images DIR --out data/mine

Images become links to the source, or copies with --copy; the source is never written to. What is left out is counted.
The result is looked at as tools/check_data.py does; the exit code is 1 where training would be refused. docs/data.md.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from conversion import class_folders, coco_layout, huggingface, label_maps, table
from conversion.coco_exports import read_coco_export
from conversion.cvat import read_cvat
from conversion.dataset import DataSet
from conversion.voc import VocRules, read_voc
from conversion.yolo import read_yolo
from engine.launch import fail, parse
from files.naming import refuse_within

Source = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is written."""

    out: Path
    """New folder."""
    copy: bool = False
    """Copy the images; they become links to the source unless given."""


@dataclass(frozen=True, kw_only=True)
class DetectionTarget(Target):
    """What is written of a detection set."""

    boxes_only: bool = False
    """Leave polygons and masks out."""
    label_maps: bool = False
    """Draw polygons and masks as label maps for train_seg --layout folder, in the place of COCO's layout."""
    background: str | None = None
    """With --label-maps: class of the pixels of no object; they are ignored unless given."""

    def write(self, data: DataSet) -> list[str]:
        """Write the data set, and return what is to be said of it."""
        if (self.label_maps and self.boxes_only) or (self.background is not None and not self.label_maps):
            raise ValueError("--label-maps draws masks: it goes without --boxes-only, and --background goes with it.")
        if self.label_maps:
            return label_maps.write_label_maps(data, self.out, copy=self.copy, background=self.background)
        return coco_layout.write_coco(data, self.out, copy=self.copy, boxes_only=self.boxes_only)

    def check(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return lines on what was written, and its faults."""
        sheet = self.out / "contact_sheet.png"
        if self.label_maps:
            from segmentation.data.check import check_ade20k  # here: it imports mmseg

            seen = check_ade20k(self.out, sheet=sheet, layout="folder")
            return (*seen.lines, f"contact sheet: {seen.sheet}"), seen.faults
        from detection.data.check import check_coco  # here: it imports detectron2

        found = check_coco(self.out, files=(), sheet=sheet)
        return (*found.lines, f"contact sheet: {found.sheet}"), found.faults


@dataclass(frozen=True, kw_only=True)
class ClassTarget(Target):
    """What is written of a classification set."""

    def check(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return lines on what was written, and its faults."""
        from classification.check import check_folders  # here: it imports torch

        val = next((name for name in ("val", "test") if (self.out / name).is_dir()), None)
        found = check_folders(self.out, val_split=val)
        return found.lines, found.faults


@dataclass(frozen=True, kw_only=True)
class Yolo(DetectionTarget):
    """YOLO: data.yaml (Ultralytics, Roboflow), or classes.txt, images/ and labels/; boxes and polygons."""

    source: Source
    """Folder of the data set, or its .yaml file."""
    root: Path | None = None
    """Folder that the paths of the .yaml file are below; its own unless given."""

    def run(self) -> list[str]:
        """Convert, and return what is to be said of it."""
        refuse_within(self.out, [self.root or _folder(self.source), _folder(self.source)])
        return self.write(read_yolo(self.source, root=self.root))


@dataclass(frozen=True, kw_only=True)
class Voc(DetectionTarget):
    """PASCAL VOC: Annotations/, JPEGImages/, ImageSets/Main/, or train/ and valid/ with XML files (Roboflow)."""

    source: Source
    """Folder of the data set."""
    rules: tyro.conf.OmitArgPrefixes[VocRules] = field(default_factory=VocRules)
    """How it is read."""

    def run(self) -> list[str]:
        """Convert, and return what is to be said of it."""
        refuse_within(self.out, [self.source])
        return self.write(read_voc(self.source, self.rules))


@dataclass(frozen=True, kw_only=True)
class Coco(DetectionTarget):
    """COCO exports: of Roboflow (train/_annotations.coco.json), of CVAT (annotations/, images/)."""

    source: Source
    """Folder of the data set."""

    def run(self) -> list[str]:
        """Convert, and return what is to be said of it."""
        refuse_within(self.out, [self.source])
        return self.write(read_coco_export(self.source))


@dataclass(frozen=True, kw_only=True)
class Cvat(DetectionTarget):
    """CVAT for images 1.1: annotations.xml and images/; boxes, polygons, masks."""

    source: Source
    """Folder of the unpacked export, or its XML file."""
    images: Path | None = None
    """Folder of the images; images/ beside the XML file unless given."""

    def run(self) -> list[str]:
        """Convert, and return what is to be said of it."""
        refuse_within(self.out, [self.images or _folder(self.source), _folder(self.source)])
        return self.write(read_cvat(self.source, images=self.images))


@dataclass(frozen=True, kw_only=True)
class HuggingFace(ClassTarget):
    """Hugging Face datasets on a disk: a folder of save_to_disk, or Parquet files; needs pyarrow."""

    source: Source
    """Folder of the data set, or a .parquet file."""
    columns: huggingface.Columns = field(default_factory=huggingface.Columns)
    """Which columns are read."""

    def run(self) -> list[str]:
        """Convert, and return what is to be said of it."""
        refuse_within(self.out, [self.source])
        data = huggingface.read_huggingface(self.source, self.columns)
        return class_folders.write_class_folders(data, self.out, copy=self.copy)


@dataclass(frozen=True, kw_only=True)
class Table(ClassTarget):
    """A CSV file with a line per image: its file, its class, its split."""

    source: Source
    """The CSV file; its first line names the columns."""
    images: Path | None = None
    """Folder of the images; that of the CSV file unless given."""
    columns: table.Columns = field(default_factory=table.Columns)
    """Which columns are read."""

    def run(self) -> list[str]:
        """Convert, and return what is to be said of it."""
        refuse_within(self.out, [self.source, self.images or self.source.parent])
        data = table.read_table(self.source, self.columns, images=self.images)
        return class_folders.write_class_folders(data, self.out, copy=self.copy)


Form = (
    Annotated[Yolo, tyro.conf.subcommand("yolo")]
    | Annotated[Voc, tyro.conf.subcommand("voc")]
    | Annotated[Coco, tyro.conf.subcommand("coco")]
    | Annotated[Cvat, tyro.conf.subcommand("cvat")]
    | Annotated[HuggingFace, tyro.conf.subcommand("huggingface")]
    | Annotated[Table, tyro.conf.subcommand("table")]
)


def _folder(source: Path) -> Path:
    """Return the folder of a data set that may be named by its file."""
    return source if source.is_dir() else source.parent


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done and nothing to mend, 1 faults or failed."""
    command: Yolo | Voc | Coco | Cvat | HuggingFace | Table = parse(Form, argv, doc=__doc__)  # type: ignore[arg-type]
    try:
        print("\n".join(command.run()), flush=True)
        lines, faults = command.check()
    except (ValueError, OSError, ImportError) as error:
        return fail(error)
    print("\n".join(lines))
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
