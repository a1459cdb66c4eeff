"""Wheels for a machine without internet: which, of what versions, and how much is too much."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootstrap import detectron2_wheel, wheels
from bootstrap.environment import HOSTS, ROOT
from bootstrap.installer import SetupError


def test_versions_are_those_of_the_constraints_for_python_312() -> None:
    later, earlier = 'python_version >= "3.11"', 'python_version < "3.11"'
    text = f"yapf==0.43.0\nplatformdirs==4.14.7 ; {later}\nplatformdirs==4.12.4 ; {earlier}\n"
    assert wheels.wanted(text, ("platformdirs", "yapf")) == ["platformdirs==4.14.7", "yapf==0.43.0"]
    with pytest.raises(SetupError, match=r"constraints\.txt pins no tyro; add a line"):
        wheels.wanted(text, ("yapf", "tyro"))


def test_everything_is_pinned_and_the_hosts_are_among_it() -> None:
    names = (*wheels.LACKING, *wheels.BUILT)
    assert len(wheels.wanted((ROOT / "constraints.txt").read_text(), names)) == len(set(names))
    assert set(HOSTS) < set(names)


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("tyro-1.0.17-py3-none-any.whl", True),
        ("mmcv_lite-2.1.0-py2.py3-none-any.whl", True),
        ("detectron2-0.7.2+nocompile-py3-none-any.whl", True),
        ("pycocotools-2.0.11-cp312-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64.whl", True),
        ("wcwidth-0.9.4-cp310-abi3-manylinux_2_17_x86_64.whl", True),
        ("faster_coco_eval-1.8.0-cp312-cp312-manylinux_2_28_x86_64.whl", True),
        ("faster_coco_eval-1.8.0-cp311-cp311-manylinux_2_28_x86_64.whl", False),
        ("faster_coco_eval-1.8.0-cp312-cp312-macosx_11_0_arm64.whl", False),
        ("built-1.0-cp312-cp312-linux_x86_64.whl", False),
    ],
)
def test_what_installs_there(name: str, fits: bool) -> None:
    assert wheels.suits(name) == fits


def test_too_much_is_not_called_fine() -> None:
    mib = 2**20
    assert wheels.verdict(10 * mib, 54 * mib) == (
        "10.0 MiB of wheels, 54.0 MiB of the tree: 64.0 MiB, within 64 MiB.",
        True,
    )
    said, fine = wheels.verdict(10 * mib, 55 * mib)
    assert not fine and "65.0 MiB, more than the 64 MiB that can be sent at once" in said


def test_the_folder_holds_these_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "constraints.txt").write_text((ROOT / "constraints.txt").read_text())
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / "old-1.0-py3-none-any.whl").touch()
    calls: list[tuple[str, ...]] = []

    def pip(*words: str) -> None:
        calls.append(words)
        name = "a-1.0-py3-none-any.whl" if words[0] == "download" else "b-1.0-cp311-cp311-linux_x86_64.whl"
        (folder / name).touch()

    monkeypatch.setattr(detectron2_wheel, "fetch", lambda kept, _: kept / "origin.whl")
    monkeypatch.setattr(detectron2_wheel, "repack", lambda _, to: (to / detectron2_wheel.WHEEL_FILE).touch())
    with pytest.raises(SetupError, match=r"b-1\.0-cp311-cp311-linux_x86_64\.whl: no wheel for Python 3\.12"):
        wheels.collect(tmp_path, folder, pip)
    assert not (folder / "old-1.0-py3-none-any.whl").exists()
    download, build = calls
    assert download[:3] == ("download", "--no-deps", "--python-version") and "pydantic-core==2.50.4" in download
    assert build[:2] == ("wheel", "--no-deps") and "antlr4-python3-runtime==4.9.3" in build
