"""tools/make_scenes.py from the command line to the files."""

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
