"""Help, a typo, a missing path and what reads records alone are answered without torch and the hosts."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = sorted(path.stem for path in (ROOT / "tools").glob("*.py") if path.stem not in ("__init__", "study_job"))
PROGRAM = """
import contextlib, io, sys
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
    import tools.{tool} as tool
    try:
        code = tool.main({argv!r})
    except SystemExit as left:
        code = left.code
heavy = sorted({{"torch", "detectron2", "mmseg", "timm", "transformers", "lightning_fabric"}} & set(sys.modules))
print(code, *heavy, said.getvalue()[:500] if heavy else "")
"""
MISSING = {
    "train_cls": ["tiny", "--data", "nowhere", "--out", "o"],
    "train_det": ["tiny", "--data", "nowhere", "--out", "o"],
    "train_seg": ["tiny", "--data", ".", "--out", "o", "--init", "nowhere"],
    "probe_dense": ["vit_demo_patch8", "--data", "nowhere", "--out", "o"],
    "in_context": ["vit_demo_patch8", "--data", "nowhere", "--out", "o"],
    "make_canvases": ["vit_demo_patch8", "--data", "nowhere", "--out", "o"],
    "pretrain": ["tiny", "--data", "nowhere", "--out", "o"],
    "convert_data": ["yolo", "nowhere", "--out", "o"],
    "evaluate": ["nowhere"],
    "predict": ["nowhere", "x.png"],
    "export_onnx": ["nowhere", "--out", "x.onnx"],
    "robustness": ["nowhere", "folders", "x"],
    "reconstruct": ["nowhere", "x", "--out", "y"],
    "eval_cls": ["--init", "nowhere", "--data", "x"],
    "export_tables": ["nowhere"],
    "run_benchmark": ["nowhere"],
}


def answered(tool: str, argv: list[str]) -> str:
    """Return the exit code, and the heavy packages that were imported."""
    program = PROGRAM.format(tool=tool, argv=argv)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr


@pytest.mark.parametrize("tool", TOOLS)
def test_help(tool: str) -> None:
    assert answered(tool, ["--help"]) == "0"


@pytest.mark.parametrize(("tool", "argv"), MISSING.items())
def test_a_missing_path(tool: str, argv: list[str]) -> None:
    assert answered(tool, argv) == "1"


@pytest.mark.parametrize("argv", [["tinny"], ["tiny", "--mixp", "1"], ["tiny", "--data", ".", "--steps", "x"]])
def test_a_typo(argv: list[str]) -> None:
    assert answered("train_cls", argv) in ("1", "2")
