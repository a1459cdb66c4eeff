"""The kit: rows that end, fail, hang and die; what is kept; the small form to its end."""

import json
import os
import time
from pathlib import Path

import pytest

from perf.gpu import kit
from perf.gpu.machine import sheet_of
from perf.gpu.row import Row
from perf.gpu.runs import counted, gpu_tests
from perf.gpu.table import ROWS
from tools import gpu_kit


def rows(*names: str) -> list[Row]:
    return [Row(name=name, what=f"it {name}", run=f"tests.perf.fake_rows:{name}", share=1) for name in names]


def table(out: Path) -> list[str]:
    return [line for line in (out / "kit.md").read_text().splitlines() if line.startswith("| ")][1:]


def test_every_row_says_what_it_found_or_why_not(tmp_path: Path) -> None:
    made = [
        *rows("says", "refuses", "misses", "fails", "dies"),
        Row(name="gpu", what="CUDA", run="", share=9, small=False),
    ]
    assert kit.carry_out(tmp_path, minutes=5, device="cpu", rows=made) == 1
    assert table(tmp_path) == [
        "| says | what | call 1 \\| cpu |",
        "| refuses | it refuses | **not run: the moon is full** |",
        "| misses | it misses | **not run: no_such_library missing** |",
        "| fails | first half | done |",
        "| fails | it fails | **not finished: failed: RuntimeError: no kernel** |",
        "| dies | it dies | **not run: its process ended with code -9** |",
        "| gpu | CUDA | **not run: no CUDA device (--device cpu)** |",
    ]
    kept = json.loads((tmp_path / "kit.json").read_text())
    assert kept["device"] == "cpu" and kept["rows"][0]["lines"][0]["numbers"] == {"value": 1.5}


def test_a_row_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    start = time.monotonic()
    assert kit.carry_out(tmp_path, minutes=4 / 60, device="cpu", rows=rows("hangs")) == 1
    assert time.monotonic() - start < 30
    child, reason = table(tmp_path)
    assert reason == "| hangs | it hangs | **not finished: time limit of 4 s** |"
    number = int(child.split("|")[3])
    gone = time.monotonic() + 10
    while time.monotonic() < gone and Path(f"/proc/{number}/cmdline").exists():
        if not Path(f"/proc/{number}/cmdline").read_bytes():  # a zombie that nobody waits for
            return
        time.sleep(0.1)
    assert not Path(f"/proc/{number}").exists()


def test_rows_left_when_the_minutes_are_over(tmp_path: Path) -> None:
    assert kit.carry_out(tmp_path, minutes=0.5 / 60, device="cpu", rows=rows("says")) == 1
    assert table(tmp_path) == ["| says | it says | **not run: the minutes are over** |"]


def test_stopped_and_called_again(tmp_path: Path) -> None:
    made = rows("says", "interrupts", "refuses")
    assert kit.carry_out(tmp_path, minutes=5, device="cpu", rows=made, at_once=1) == 130
    assert table(tmp_path)[0] == "| says | what | call 1 \\| cpu |"
    assert table(tmp_path)[1:] == [
        "| interrupts | it interrupts | **not run** |",
        "| refuses | it refuses | **not run** |",
    ]
    made[1] = Row(name="interrupts", what="", run="tests.perf.fake_rows:says", share=1)
    assert kit.carry_out(tmp_path, minutes=5, device="cpu", rows=made) == 1
    assert table(tmp_path)[:2] == ["| says | what | call 1 \\| cpu |", "| interrupts | what | call 1 \\| cpu |"]
    (tmp_path / "kit.json").write_text('{"device": "cuda", "rows": []}')
    with pytest.raises(ValueError, match=r"kit\.json: holds rows of cuda, and this is cpu; give another --out"):
        kit.carry_out(tmp_path, minutes=5, device="cpu", rows=made)


def test_a_gpu_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_kit.main(["--out", str(tmp_path / "out"), "--device", "cuda"]) == 1
    assert "device cuda: no CUDA device; `--device cpu` runs the small form" in capsys.readouterr().err
    assert gpu_kit.main(["--out", str(tmp_path / "out"), "--minutes", "0"]) == 1
    assert not (tmp_path / "out").exists()


def test_files_with_tests_for_a_gpu() -> None:
    found = {path.name for path in gpu_tests(kit.ROOT / "tests")}
    assert found >= {
        "test_pretended_cuda.py",
        "test_numbers.py",
        "test_runs.py",
        "test_kernels.py",
        "test_block_modes.py",
    }
    assert len(found) < 12


def test_what_pytest_ended_with() -> None:
    lines = ["FAILED tests/a.py::b - 3 failed", "=== 2 failed, 61 passed, 1 skipped in 70.12s (0:01:10) ===", ""]
    assert counted(lines) == (
        "2 failed, 61 passed, 1 skipped in 70.12s (0:01:10)",
        {"failed": 2, "passed": 61, "skipped": 1},
    )
    assert counted(["ERROR: usage"]) == ("", {})


def test_the_document_has_every_row() -> None:
    text = (kit.ROOT / "docs/gpu.md").read_text(encoding="utf-8")
    named = [line.split("|")[1].strip() for line in text.splitlines() if line.count("|") == 5]
    assert named[:1] + named[2:] == ["row", *(row.name for row in ROWS)]


@pytest.mark.parametrize(
    ("name", "bfloat16"),
    [
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989.5),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("Tesla V100-SXM2-16GB", None),
    ],
)
def test_data_sheets_by_name(name: str, bfloat16: float | None) -> None:
    sheet = sheet_of(name)
    assert sheet is not None and sheet.rate("bfloat16") == bfloat16
    assert sheet_of(f"{name} MIG 1g.10gb") is None and sheet_of("AMD EPYC") is None


@pytest.mark.slow
def test_the_small_form_runs_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row that has one, by real peers, tools and processes; no time is looked at."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert gpu_kit.main(["--out", str(tmp_path), "--device", "cpu", "--minutes", "60"]) == 0
    said = {row["name"]: row for row in json.loads((tmp_path / "kit.json").read_text())["rows"]}
    assert list(said) == [row.name for row in ROWS]
    for row in ROWS:
        assert said[row.name]["complete"] == row.small, said[row.name]
        assert row.small or said[row.name]["reason"] == "not run: no CUDA device (--device cpu)"
    assert not [line for line in table(tmp_path) if "NOT the same work" in line]
    assert {len(said[name]["lines"]) for name in ("mae", "classification", "detection", "segmentation")} == {3}
    assert (tmp_path / "profile.txt").stat().st_size and os.listdir(tmp_path / "rows")
