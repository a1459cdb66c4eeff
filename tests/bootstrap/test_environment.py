"""When .venv counts as complete, when it is rebuilt, and what a failure says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from bootstrap import __main__ as entry
from bootstrap import environment
from bootstrap.installer import SetupError, explain, run_pip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose .venv set-up has just finished."""
    for name in environment.INPUTS:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"contents of {name}")
    binaries = tmp_path / ".venv/bin"
    binaries.mkdir(parents=True)
    (binaries / "python").symlink_to(sys.executable)
    (binaries / "pip").write_text(f"#!{binaries}/python\n")
    (tmp_path / environment.STATE).write_text(environment.digest(tmp_path))
    return tmp_path


def test_complete_until_an_input_changes(project: Path) -> None:
    assert environment.is_complete(project)
    for name in environment.INPUTS:
        before = (project / name).read_text()
        (project / name).write_text(before + "!")
        assert not environment.is_complete(project), name
        (project / name).write_text(before)
    assert environment.is_complete(project)


def test_incomplete_without_its_python_its_state_or_in_another_folder(project: Path) -> None:
    moved = project.parent / f"{project.name}-moved"
    project.rename(moved)
    assert not environment.is_complete(moved)
    moved.rename(project)
    assert environment.is_complete(project)
    (project / ".venv/bin/python").unlink()
    assert not environment.is_complete(project)
    (project / ".venv/bin/python").symlink_to(sys.executable)
    (project / environment.STATE).unlink()
    assert not environment.is_complete(project)


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (SetupError("no network"), 1, None),
        (OSError("disk full"), 1, "an earlier set-up was cut off"),
        (KeyboardInterrupt(), 130, "an earlier set-up was cut off"),
    ],
)
def test_a_failed_setup_is_done_again_and_a_cut_off_one_from_scratch(
    project: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, reason: str | None
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(environment, "ROOT", project)
    assert environment.main(this_python=False) == 0
    (project / "setup.cfg").write_text("changed")
    monkeypatch.setattr(environment, "run_pip", fail)
    assert environment.main(this_python=False) == code
    assert not environment.is_complete(project)
    assert environment.reason_to_rebuild(project, this_python=False) == reason


def test_reasons_to_rebuild(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.reason_to_rebuild(project, this_python=True) is None
    monkeypatch.setattr(environment, "python_of", lambda folder: (3, 99))
    assert environment.reason_to_rebuild(project, this_python=False) is None
    assert environment.reason_to_rebuild(project, this_python=True) == "it has Python 3.99"
    monkeypatch.setattr(environment, "python_of", lambda folder: (3, 9))
    assert environment.reason_to_rebuild(project, this_python=False) == "it has Python 3.9"
    monkeypatch.setattr(environment, "python_of", lambda folder: None)
    assert environment.reason_to_rebuild(project, this_python=False) == "its Python does not run"
    monkeypatch.setattr(environment, "python_of", lambda folder: (3, 11))
    (project / ".venv/bin/pip").write_text("#!/elsewhere/.venv/bin/python\n")
    assert environment.reason_to_rebuild(project, this_python=False) == "it was made in another folder"
    (project / environment.STATE).write_text("")
    assert environment.reason_to_rebuild(project, this_python=False) == "an earlier set-up was cut off"


def test_missing_ensurepip_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    with pytest.raises(SetupError, match=rf"apt install python{version}-venv"):
        environment.create(tmp_path, this_python=False)


def test_an_old_python_is_told_which_one_to_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry.sys, "version_info", (3, 8, 18))
    monkeypatch.setattr(entry.shutil, "which", lambda name: name if name == "python3.12" else None)
    assert "3.10 or newer is needed" in entry.refusal()
    assert entry.refusal().endswith("is 3.8.18. Run: make setup PYTHON=python3.12")
    monkeypatch.setattr(entry.shutil, "which", lambda name: None)
    assert "install one (conda, uv and pyenv do that without sudo)" in entry.refusal()


@pytest.mark.parametrize(
    ("output", "advice"),
    [
        ("ERROR: Could not install: [Errno 28] No space left on device", "the disk (or your quota) is full"),
        ("THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "pip cache purge"),
        (
            "NewConnectionError: Failed to establish a new connection\nERROR: No matching distribution found",
            "the package index cannot be reached",
        ),
        ("ERROR: No matching distribution found for torch==2.14.1", "no such version for this Python"),
        ("ERROR: ResolutionImpossible: for help visit", "PIP_CONSTRAINT"),
        ("PermissionError: [Errno 13] Permission denied: '/opt'", "cannot be written to"),
        ("something new", "not a known one"),
    ],
)
def test_pip_failures_are_explained(output: str, advice: str) -> None:
    assert advice in explain(output)


def test_pip_is_shown_little_logged_whole_and_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        "WARNING: Location 'file:///mirror/torch/' is ignored: it is neither a file nor a directory.",
        "Collecting torch==2.14.1",
        "  Downloading torch-2.14.1-cp311-cp311-manylinux_2_28_x86_64.whl (907.8 MB)",
        "  Downloading yacs-0.1.8-py3-none-any.whl (14 kB)",
        "Installing collected packages: torch, yacs",
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
    ]
    (tmp_path / "said").write_text("\n".join(lines) + "\n")
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\ncat "{tmp_path}/said"\necho "index $PIP_INDEX_URL, user $PIP_USER, got $*"\nexit 3\n'
    )
    python.chmod(0o755)
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    with pytest.raises(SetupError, match=r"^pip install failed \(exit code 3\): the disk .*setup\.log$"):
        run_pip(python, tmp_path / "setup.log", "install", "torch")
    shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert shown == [lines[2].strip(), lines[4], lines[5]]
    log = (tmp_path / "setup.log").read_text()
    assert all(line in log for line in lines)
    assert "index https://mirror.example/simple, user 0, got -m pip install torch" in log
