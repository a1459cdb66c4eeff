"""tools/make_scenes.py from the command line to the files."""

import runpy
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "make_scenes.py"


def test_tool_writes_and_names_the_layouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scenes"
    counts = ["--classify-train", "9", "--classify-val", "8", "--classify-test", "8"]
    counts += ["--dense-train", "2", "--dense-val", "1", "--dense-test", "1"]
    command = ["make_scenes.py", "--out", str(out), "--image-size", "40", "56", *counts]
    monkeypatch.setattr(sys, "argv", command)
    for _ in range(2):
        runpy.run_path(str(TOOL), run_name="__main__")
        printed = capsys.readouterr().out
        assert "train          9 ImageFolder images, 2 COCO and ADE20K images" in printed
        for name in ("imagenet", "coco", "ade20k", "contact_sheet.png"):
            assert str(out / name) in printed
            assert (out / name).exists()
