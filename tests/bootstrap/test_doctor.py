"""Pins, markers, and what the doctor says of an environment that differs from them."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bootstrap import doctor
from bootstrap.environment import HOSTS, ROOT

LINUX_310 = {"python_version": "3.10", "sys_platform": "linux", "platform_machine": "x86_64"}
LINUX_313 = {"python_version": "3.13", "sys_platform": "linux", "platform_machine": "x86_64"}
MAC_312 = {"python_version": "3.12", "sys_platform": "darwin", "platform_machine": "arm64"}

CONSTRAINTS = """\
# comment
torch==2.14.1
Typing_Extensions==4.16.0  # spelt as its author does
numpy==2.4.6 ; python_version >= "3.11"
numpy==2.2.6 ; python_version < "3.11"
triton==3.8.0 ; sys_platform == "linux" and platform_machine == "x86_64"
"""


def test_markers_choose_the_line() -> None:
    pins = {name: str(pin.specifier) for name, pin in doctor.pinned(CONSTRAINTS, LINUX_310).items()}
    assert pins == {"torch": "==2.14.1", "typing-extensions": "==4.16.0", "numpy": "==2.2.6", "triton": "==3.8.0"}
    assert str(doctor.pinned(CONSTRAINTS, LINUX_313)["numpy"].specifier) == "==2.4.6"
    assert "triton" not in doctor.pinned(CONSTRAINTS, MAC_312)


def test_an_unreadable_line_is_refused() -> None:
    with pytest.raises(ValueError, match="torch 2"):
        doctor.pinned("torch 2", LINUX_310)


def test_missing_and_different_versions_are_found_and_other_builds_are_not() -> None:
    pins = doctor.pinned("torch==2.14.1\nnumpy==2.4.6\ntimm==1.0.31\ntriton==3.8.0\nsympy==1.14.0\n")
    installed = {"torch": "2.14.1+cpu", "numpy": "2.4.5", "sympy": "1.13.0", "unrelated": "1.0"}
    pip = "Run: .venv/bin/python -m pip install --no-deps"
    assert doctor.differing(pins, ["torch", "numpy", "timm", "unpinned"], installed) == [
        f"numpy: 2.4.5 is not the tested version. {pip} 'numpy==2.4.6'",
        f"sympy: 1.13.0 is not the tested version. {pip} 'sympy==1.14.0'",
        f"timm: missing. {pip} 'timm==1.0.31'",
        f"unpinned: missing. {pip} 'unpinned'",
    ]


def test_distributions_that_overwrite_each_other_are_named() -> None:
    assert doctor.clashes({"cv2": ["opencv-python", "opencv-python-headless"], "mmcv": ["mmcv-lite", "mmcv-lite"]}) == [
        "cv2: opencv-python and opencv-python-headless overwrite each other. Run: rm -rf .venv && make setup"
    ]


def test_without_an_environment_that_runs_the_doctor_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    assert doctor.main() == 1
    assert capsys.readouterr().out == ".venv is not there. Run: make setup\n"
    (tmp_path / ".venv").mkdir()
    assert doctor.main() == 1
    assert capsys.readouterr().out == ".venv does not run, or has no pip. Run: rm -rf .venv && make setup\n"


def test_troubles_of_the_running_environment_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "constraints.txt").write_text("numpy==1.0\n")
    monkeypatch.setattr(doctor, "IMPORTS", ("json", "no_such_module"))
    monkeypatch.setattr(doctor, "asked", lambda: ["numpy", "no-such-distribution"])
    assert doctor.examine(tmp_path) == 1
    facts, _, troubles = capsys.readouterr().out.partition("\n4 to mend:\n")
    assert "CPU: " in facts and f"{'no-such-distribution':<24}not installed" in facts
    lines = troubles.splitlines()
    assert lines[0].startswith("- no-such-distribution: missing. Run: ")
    assert lines[1].startswith("- numpy: ") and "is not the tested version" in lines[1]
    assert lines[2] == (
        "- no_such_module does not import: ModuleNotFoundError: No module named 'no_such_module'. "
        "Run: rm -rf .venv && make setup"
    )
    assert lines[3].endswith("its set-up did not finish. Run: make setup") and len(lines) == 4


def test_what_the_project_asks_for_is_its_own_its_dev_extra_and_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["Torch>=2.14", 'numpy ; python_version < "3"', 'pytest>=8 ; extra == "dev"', 'submitit ; extra == "slurm"']
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: lines)
    assert doctor.asked() == ["torch", "pytest", *HOSTS]


def test_every_requirement_is_pinned_on_every_supported_python() -> None:
    constraints = (ROOT / "constraints.txt").read_text()
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    lines = [*setup["options"]["install_requires"].split("\n"), *setup["options.extras_require"]["dev"].split("\n")]
    needed = {canonicalize_name(Requirement(line).name) for line in lines if line} | {*HOSTS}
    assert {"torch", "opencv-python-headless", "pytest", "packaging", *HOSTS} <= needed
    for machine in (LINUX_310, LINUX_313, MAC_312):
        pins = doctor.pinned(constraints, machine)
        assert needed <= {*pins} and all(str(pin.specifier).startswith("==") for pin in pins.values())
    assert not {"opencv-python", "mmengine"} & {*doctor.pinned(constraints, LINUX_310)}
