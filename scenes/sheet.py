"""The contact sheet: scenes read back from their files, with their labels drawn.

Each panel shows the image with COCO's boxes, polygons and category names, and ADE20K's label map beside it;
the title is the image id and its ImageFolder class. What the sheet shows is what a loader reads.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from engine.images.file import opened
from engine.images.reading import read_rgb
from engine.palette import told_apart
from scenes.classes import IGNORE, WORLDS, World
from scenes.config import SPLITS
from scenes.layouts import ScenesIndex

PANEL = 256
"""Pixels: an image is enlarged by the least whole number that makes its longer side so long."""

TITLE, GAP = 18, 8


def class_colours(world: World) -> np.ndarray:
    """Return a colour for each semantic id 0, 1, 2, ..., (ids, 3) uint8; 0 is black, the rest can be told apart."""
    return np.concatenate([np.zeros((1, 3), dtype=np.uint8), told_apart(len(world.semantic_names))])


def write_contact_sheet(index: ScenesIndex, path: Path, *, split: str = "train", rows: int = 4) -> Path:
    """Return `path`, a PNG of the first scenes of the split, three in a row, and a legend of classes."""
    names = next(known for known in SPLITS if known.name == split)
    content = json.loads((index.coco / "annotations" / f"instances_{names.coco}.json").read_bytes())
    annotations: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in content["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    world = WORLDS[index.config.world]
    panels = []
    for image in content["images"][: 3 * rows]:
        name = image["file_name"]
        labelled = next((index.imagenet / split).glob(f"*/{name}"), None)
        label = labelled.parent.name if labelled else "not in imagenet/"
        label_map = index.ade20k / "annotations" / names.ade20k / Path(name).with_suffix(".png")
        panels.append(
            _panel(
                index.coco / names.coco / name,
                label_map,
                annotations[image["id"]],
                world,
                title=f"{Path(name).stem}: {label}",
            )
        )
    width, height = panels[0].size
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    legend = _legend(world, columns * (width + GAP))
    sheet = Image.new("RGB", (columns * (width + GAP), lines * (height + GAP) + legend.height), "white")
    for number, panel in enumerate(panels):
        sheet.paste(panel, (number % columns * (width + GAP), number // columns * (height + GAP)))
    sheet.paste(legend, (0, lines * (height + GAP)))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return path


def _panel(
    image_path: Path, map_path: Path, annotations: list[dict[str, Any]], world: World, *, title: str
) -> Image.Image:
    image = read_rgb(image_path)
    with opened(map_path, str(map_path)) as map_file:
        labels_HW = np.asarray(map_file)
    scale = -(-PANEL // max(image.size))
    size = (image.width * scale, image.height * scale)
    picture = image.resize(size, Image.Resampling.NEAREST)
    _draw_instances(ImageDraw.Draw(picture), annotations, world, scale)
    colours = Image.fromarray(class_colours(world)[labels_HW])
    panel = Image.new("RGB", (2 * size[0] + 2, size[1] + TITLE), "white")
    ImageDraw.Draw(panel).text((2, 2), title, fill="black", font=ImageFont.load_default(13))
    panel.paste(picture, (0, TITLE))
    panel.paste(colours.resize(size, Image.Resampling.NEAREST), (size[0] + 2, TITLE))
    return panel


def _draw_instances(draw: ImageDraw.ImageDraw, annotations: list[dict[str, Any]], world: World, scale: int) -> None:
    """Draw outlines and boxes in the class's colour, then the names on top of all of them."""
    font = ImageFont.load_default(12)
    things = {thing.coco_id: thing for thing in world.things}
    colours = class_colours(world)
    for annotation in annotations:
        colour = tuple(colours[things[annotation["category_id"]].semantic_id].tolist())
        for polygon in annotation["segmentation"]:
            draw.polygon([value * scale for value in polygon], outline=colour, width=2)
        left, top, width, height = (value * scale for value in annotation["bbox"])
        draw.rectangle((left, top, left + width - 1, top + height - 1), outline="white")
    for annotation in annotations:
        left, top = (value * scale for value in annotation["bbox"][:2])
        name = things[annotation["category_id"]].name
        draw.rectangle(draw.textbbox((left + 1, top), name, font=font), fill="black")
        draw.text((left + 1, top), name, fill="white", font=font)


def _legend(world: World, width: int) -> Image.Image:
    """Return the colour, id and name of each class, and how the picture is to be read."""
    line, cell = 22, 96
    per_line = max(1, width // cell)
    entries = [(IGNORE, "ignore"), *enumerate(world.semantic_names, start=1)]
    font = ImageFont.load_default(13)
    notes = _wrapped(
        "left: COCO boxes (white), polygons, names; right: ADE20K label map; title: ImageFolder class", width
    )
    legend = Image.new("RGB", (width, line * (len(notes) - (-len(entries) // per_line))), "white")
    draw = ImageDraw.Draw(legend)
    for number, note in enumerate(notes):
        draw.text((4, 2 + line * number), note, fill="black", font=font)
    for number, (identifier, name) in enumerate(entries):
        left, top = number % per_line * cell + 4, line * (len(notes) + number // per_line)
        colour = tuple(class_colours(world)[identifier].tolist())
        draw.rectangle((left, top + 2, left + 14, top + 16), fill=colour)
        draw.text((left + 19, top + 1), f"{identifier} {name}", fill="black", font=font)
    return legend


def _wrapped(text: str, width: int) -> list[str]:
    """Return a text as lines of at most `width` pixels in the letters of the legend."""
    font = ImageFont.load_default(13)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > width - 8 and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
