"""A results file of any origin: what is scored, and what is refused by its place."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as rle
import pytest

from detection.evaluation.rescore import score_files
from tools import evaluate

SIZE = (20, 30)


def runs(box: list[int]) -> dict[str, Any]:
    mask_HW = np.zeros(SIZE, np.uint8)
    mask_HW[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = 1
    return {"size": list(SIZE), "counts": rle.encode(np.asfortranarray(mask_HW))["counts"].decode()}


def truth(crowd: int = 0, *, masks: bool = True) -> dict[str, Any]:
    boxes = [[2, 3, 10, 8], [15, 4, 12, 12], [0, 0, 9, 9]]
    annotations = [
        {"id": n, "image_id": 1 + n // 3, "category_id": 1 + n % 2, "bbox": box, "iscrowd": crowd, "area": 90}
        | ({"segmentation": runs(box)} if masks else {})
        for n, box in enumerate(boxes, start=1)
    ]
    return {
        "images": [{"id": n, "file_name": f"{n}.jpg", "height": SIZE[0], "width": SIZE[1]} for n in (1, 2)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": annotations,
    }


def perfect() -> list[dict[str, Any]]:
    keys = ("image_id", "category_id", "bbox", "segmentation")
    return [{**{key: a[key] for key in keys}, "score": 0.9} for a in truth()["annotations"]]


def write(folder: Path, annotations: Any, detections: Any) -> tuple[Path, Path]:
    paths = folder / "truth.json", folder / "found.json"
    for path, content in zip(paths, (annotations, detections), strict=True):
        path.write_text(json.dumps(content))
    return paths


def test_perfect_detections_of_every_notation(tmp_path: Path) -> None:
    found = perfect()
    assert all(s.summary["ap"] == 100 for s in score_files(*write(tmp_path, truth(), found)).scores.values())
    # ids and numbers as another program may write them, unknown fields, run lengths as numbers
    counts = {"size": [20.0, 30.0], "counts": rle.decode(found[0]["segmentation"]).T.reshape(-1)}
    change = np.flatnonzero(np.diff(counts["counts"], prepend=0, append=-1))
    counts["counts"] = np.diff(change, prepend=0).tolist()
    found[0] |= {"image_id": 1.0, "category_id": 2.0, "score": 7, "segmentation": counts, "area": None, "note": []}
    done = score_files(*write(tmp_path, truth(), found))
    assert {kind: one.summary["ap"] for kind, one in done.scores.items()} == {"box": 100.0, "mask": 100.0}
    assert done.notes == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [float("nan"), 0, 5, 5]}, "has bbox [nan, 0, 5, 5]; it must be four finite numbers"),
        ({"bbox": [0, 0, float("inf"), 5]}, "four finite numbers"),
        ({"bbox": [0, 0, 5]}, "four finite numbers"),
        ({"bbox": [0, 0, 5, "5"]}, "four finite numbers"),
        ({"bbox": [0, 0, 5, True]}, "four finite numbers"),
        ({"bbox": [0, 0, 5, 10**400]}, "four finite numbers"),
        ({"bbox": {"x": 1}}, "four finite numbers"),
        ({"bbox": [9, 9, -5, 5]}, "width and height must not be negative"),
        ({"score": float("nan")}, "has score nan; it must be a finite number"),
        ({"score": "0.9"}, "has score '0.9'"),
        ({"score": None}, "has score None"),
        ({"score": True}, "has score True"),
        ({"image_id": "1"}, "do not list '1'. truth.json has 1, 2: a number is another id than the same number as"),
        ({"image_id": 7}, "has image_id 7; the annotations do not list 7. truth.json has 1, 2."),
        ({"image_id": True}, "has image_id True"),
        ({"image_id": [1]}, "has image_id [1]"),
        ({"category_id": float("nan")}, "has category_id nan"),
        ({"category_id": 9}, "has category_id 9; the annotations do not list 9. truth.json has 1, 2."),
        ({"segmentation": {"size": [30, 20], "counts": "44"}}, "run lengths for an image of [30, 20]"),
        ({"segmentation": {"size": [20, 30], "counts": "44"}}, "run lengths of 8 pixels; the image of [20, 30] has 60"),
        ({"segmentation": [[1, 1, 5, 1, 5, 5]]}, "has polygons as segmentation"),
        ({"segmentation": "44"}, "neither a list of polygons nor run lengths"),
    ],
)
def test_a_detection_that_cannot_be_scored(
    change: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = perfect()
    found[1] |= change
    annotations, detections = write(tmp_path, truth(), found)
    assert evaluate.main(["coco", "--annotations", str(annotations), "--detections", str(detections)]) == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {detections}: detection 2 has ") and message in said.err and not said.out


def test_no_detection_is_an_ap_of_0(tmp_path: Path) -> None:
    done = score_files(*write(tmp_path, truth(), []))
    assert {kind: one.summary["ap"] for kind, one in done.scores.items()} == {"box": 0.0, "mask": 0.0}


def test_nothing_to_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for detections in ([], perfect()):
        paths = write(tmp_path, truth(crowd=1), detections)
        assert evaluate.main(["coco", "--annotations", str(paths[0]), "--detections", str(paths[1])]) == 1
        said = capsys.readouterr()
        assert f"{paths[0]}: each of its 3 annotations that can be used is a crowd" in said.err and not said.out


def test_what_some_detections_lack_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = perfect()
    found[2]["bbox"] = None
    paths = write(tmp_path, truth(), found)
    assert evaluate.main(["coco", "--annotations", str(paths[0]), "--detections", str(paths[1])]) == 0
    said = capsys.readouterr()
    assert "1 of 3 detections have no `bbox` (the first is detection 3), so that box AP is left out" in said.err
    assert "mask_ap 100.0000" in said.out and "box_ap" not in said.out
    done = score_files(*write(tmp_path, truth(masks=False), perfect()))
    assert list(done.scores) == ["box"] and "has no masks for all annotations" in done.notes[0]
    alone = [{key: value for key, value in item.items() if key != "bbox"} for item in perfect()]
    done = score_files(*write(tmp_path, truth(), alone))
    assert list(done.scores) == ["mask"] and done.notes == ()


def test_the_annotations_in_the_place_of_detections(tmp_path: Path) -> None:
    annotations, detections = write(tmp_path, truth(), truth())
    with pytest.raises(ValueError, match=r"is a list of detections\. It looks like an annotation file"):
        score_files(annotations, detections)


def test_an_id_as_a_float_that_is_rounded(tmp_path: Path) -> None:
    """2.0**62 may have been 2**62 + 1, which is another image."""
    annotations, found = truth(), perfect()
    for item in (*annotations["annotations"], *found):
        item["image_id"] += 2**62
    for image in annotations["images"]:
        image["id"] += 2**62
    assert score_files(*write(tmp_path, annotations, found)).scores["box"].summary["ap"] == 100
    found[0]["image_id"] = float(2**62 + 1)
    annotations["images"][0]["id"] = annotations["annotations"][0]["image_id"] = 2**62
    annotations["annotations"][1]["image_id"] = 2**62
    with pytest.raises(ValueError, match=r"detection 1 has image_id 4\.61\S+, a float that stands for several whole"):
        score_files(*write(tmp_path, annotations, found))
