"""tools/make_scenes.py from the command line to the files."""

import json
from pathlib import Path

import pytest

from tools import make_scenes


def test_tool_writes_and_names_the_layouts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scenes"
    counts = ["--classify-train", "9", "--classify-val", "8", "--classify-test", "8"]
    counts += ["--dense-train", "2", "--dense-val", "1", "--dense-test", "1"]
    command = ["--out", str(out), "--image-size", "40", "56", *counts]
    for _ in range(2):
        assert make_scenes.main(command) == 0
        printed = capsys.readouterr().out
        assert "train          9 ImageFolder images, 2 COCO and ADE20K images" in printed
        for name in ("imagenet", "coco", "ade20k", "contact_sheet.png"):
            assert str(out / name) in printed
            assert (out / name).exists()


def test_folder_of_other_scenes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = ["--classify-train", "8", "--classify-val", "8", "--classify-test", "8"]
    counts += ["--dense-train", "1", "--dense-val", "1", "--dense-test", "1"]
    assert make_scenes.main(["--out", str(tmp_path / "s"), *counts]) == 0
    assert make_scenes.main(["--out", str(tmp_path / "s"), "--seed", "3", *counts]) == 1
    assert "error: " in capsys.readouterr().err


def test_the_world_is_a_flag_and_a_wrong_one_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = ["--classify-train", "12", "--classify-val", "12", "--classify-test", "12"]
    counts += ["--dense-train", "1", "--dense-val", "1", "--dense-test", "1"]
    assert make_scenes.main(["--out", str(tmp_path / "s"), "--world", "indoor", *counts]) == 0
    assert (tmp_path / "s/imagenet/train/heart").is_dir()
    assert json.loads((tmp_path / "s/scenes.json").read_text())["config"]["world"] == "indoor"
    capsys.readouterr()
    with pytest.raises(SystemExit):
        make_scenes.main(["--out", str(tmp_path / "t"), "--world", "indor", *counts])
    said = capsys.readouterr().err
    assert "indor" in said and "indoor" in said and "outdoor" in said
    assert not (tmp_path / "t").exists()
