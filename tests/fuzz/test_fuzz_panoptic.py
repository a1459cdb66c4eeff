"""Panoptic JSON of any damage: read as it was meant, or refused with the file's name."""

import random
from pathlib import Path
from typing import Any

from segmentation.data.panoptic_json import LAST_SEGMENT, read_panoptic

VALUE = {
    "categories": [{"id": k, "name": name, "color": [k, 0, 255]} for k, name in ((1, "cat"), (7, "sky"), (9, "ä"))],
    "images": [{"id": k, "file_name": f"d/{k}.jpg", "width": 4, "height": 3} for k in (3, 4)],
    "annotations": [
        {
            "image_id": k,
            "file_name": f"{k}.png",
            "segments_info": [
                {"id": 5 + k, "category_id": 7, "area": 3},
                {"id": 70000, "category_id": 1, "iscrowd": 0},
            ],
        }
        for k in (3, 4)
    ],
}


def test_panoptic_json(campaign: Any, damaged_json: Any, tmp_path: Path) -> None:
    path = tmp_path / "p.json"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        found = read_panoptic(path)
        names = found.classes.names
        assert 1 <= len(names) == len(set(names)) and all(name == " ".join(name.split()) != "" for name in names)
        if found.classes.palette is not None:
            assert len(found.classes.palette) == len(names)
            assert all(0 <= part <= 255 for colour in found.classes.palette for part in colour)
        assert len({entry.image for entry in found.images}) == len(found.images) > 0
        for entry in found.images:
            assert isinstance(entry.png, str) and entry.png
            for segment, number in entry.segments.items():
                assert 0 <= segment <= LAST_SEGMENT and 0 <= number < len(names)

    def case(rng: random.Random) -> bytes:
        return bytes(damaged_json(rng, VALUE))

    campaign.run(case, read, cases=500, names="p.json")
