"""Pins, markers, and what the doctor says of an environment that differs from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootstrap import doctor
from bootstrap.environment import ROOT
from bootstrap.versions import HOSTS, Finding, Platform, compare, pinned, required

LINUX_310 = Platform(python_version="3.10", sys_platform="linux", platform_machine="x86_64")
LINUX_313 = Platform(python_version="3.13", sys_platform="linux", platform_machine="x86_64")
MAC_312 = Platform(python_version="3.12", sys_platform="darwin", platform_machine="arm64")

CONSTRAINTS = """\
# comment
torch==2.14.1
Typing_Extensions==4.16.0  # spelt as its author does
numpy==2.4.6 ; python_version >= "3.11"
numpy==2.2.6 ; python_version < "3.11"
triton==3.8.0 ; sys_platform == "linux" and platform_machine == "x86_64"
"""


def test_markers_choose_the_line() -> None:
    assert pinned(CONSTRAINTS, LINUX_310) == {
        "torch": "2.14.1",
        "typing-extensions": "4.16.0",
        "numpy": "2.2.6",
        "triton": "3.8.0",
    }
    assert pinned(CONSTRAINTS, LINUX_313)["numpy"] == "2.4.6"
    assert "triton" not in pinned(CONSTRAINTS, MAC_312)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("torch>=2.14", r"line 1: 'torch>=2.14' is not NAME==VERSION"),
        ('torch==2 ; os_name == "nt"', r"line 1: marker 'os_name == \"nt\"' is none of"),
    ],
)
def test_an_unreadable_line_is_refused(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pinned(line, LINUX_310)


def test_missing_and_different_versions_are_found_and_other_builds_are_not() -> None:
    pins = {"torch": "2.14.1", "numpy": "2.4.6", "timm": "1.0.31", "triton": "3.8.0", "sympy": "1.14.0"}
    installed = {"torch": "2.14.1+cpu", "numpy": "2.4.5", "sympy": "1.13.0", "unrelated": "1.0"}
    assert compare(pins, ["torch", "numpy", "timm", "unpinned"], installed) == [
        Finding(name="numpy", wanted="2.4.6", found="2.4.5"),
        Finding(name="sympy", wanted="1.14.0", found="1.13.0"),
        Finding(name="timm", wanted="1.0.31", found=None),
        Finding(name="unpinned", wanted="any version", found=None),
    ]


def test_each_finding_names_the_command_that_mends_it() -> None:
    assert doctor.remedy(Finding(name="timm", wanted="1.0.31", found=None)) == (
        "timm: missing. Run: .venv/bin/python -m pip install --no-deps 'timm==1.0.31'"
    )
    assert doctor.remedy(Finding(name="numpy", wanted="2.4.6", found="2.4.5")).startswith(
        "numpy: 2.4.5 instead of 2.4.6. Run: "
    )


def test_a_distribution_that_overwrites_another_is_named() -> None:
    (line,) = doctor.clashes({"opencv-python": "5.0.0", "opencv-python-headless": "5.0.0"})
    assert line.startswith("opencv-python: overwrites files of opencv-python-headless. Run: ")


def test_without_an_environment_the_doctor_names_setup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    assert doctor.main([]) == 1
    assert ".venv is not there. Run: make setup" in capsys.readouterr().out


def test_every_requirement_is_pinned_on_every_supported_python() -> None:
    constraints = (ROOT / "constraints.txt").read_text()
    needed = required(ROOT / "setup.cfg")
    assert {"torch", "opencv-python-headless", "pytest", *HOSTS} <= set(needed)
    for platform in (LINUX_310, LINUX_313, MAC_312):
        assert set(needed) <= set(pinned(constraints, platform))
    assert not {"opencv-python", "mmengine"} & set(pinned(constraints, LINUX_310))
