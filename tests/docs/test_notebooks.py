"""Every cell of the notebooks runs, in a kernel of its own and in small form; their figures are there and described."""

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs/notebooks"
SMALLER = {
    "look_inside": {"IMAGES": 64, "STEPS": 2},
    "fifty_images": {"IMAGES": 64, "STEPS": 2, "TRANSFER": 2},
    "differences": {"IMAGES": 64, "STEPS": 2, "TRANSFER": 2, "SEEDS": 2},
}
"""Notebooks, and what stands in the place of the values that they assign."""
SAYS = {
    "look_inside": r"root mean squared error of the masked pixels: \[0\.\d+(, 0\.\d+){4}\]",
    "fifty_images": r"weights +mae +random.*miou +\d",
    "differences": r"mae-supervised .*top1 +labels +random +-?\d",
}
"""What the cells print or return, in order."""


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_notebooks", ROOT / "docs/run_notebooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cells(text: str) -> list[str]:
    """Return the blocks of Python."""
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def shown(text: str) -> list[tuple[str, str]]:
    """Return the words and files of the pictures that the text shows."""
    return re.findall(r"!\[([^]]*)\]\(([^)]+)\)", text)


def test_these_are_all_and_each_is_a_page() -> None:
    assert {path.stem for path in FOLDER.glob("*.md")} == {*SMALLER} == {*SAYS}
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert all(f": notebooks/{name}.md\n" in site for name in SMALLER)
    figures = {name for path in FOLDER.glob("*.md") for _, name in shown(path.read_text(encoding="utf-8"))}
    assert {path.name for path in FOLDER.glob("*.png")} == figures
    for path in FOLDER.glob("*.png"):
        assert path.stat().st_size < 300_000, path


@pytest.mark.parametrize("name", SMALLER)
def test_what_a_notebook_is_made_of(runner: ModuleType, name: str) -> None:
    text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    head = yaml.safe_load(text.split("---\n")[1])["jupyter"]
    assert head["jupytext"]["text_representation"]["format_name"] == "markdown"
    assert head["kernelspec"]["name"] == "python3"
    found = cells(text)
    assert len(found) >= 4 and text.count("```") == 2 * len(found), "other blocks would be no cells"
    for cell in found:
        ast.parse(cell)  # plain Python: nothing for IPython alone
    assert sum({*SMALLER[name]} <= runner.assigned(cell) for cell in found) == 1
    pictures = shown(text)
    assert [file for _, file in pictures] == [f"{name}-{number}.png" for number in range(1, len(pictures) + 1)]
    assert all(len(words.split()) >= 8 for words, _ in pictures)


def test_names_that_a_cell_assigns(runner: ModuleType) -> None:
    assert runner.assigned("A, B = 1, 2\nc = d = A\nprint(e)") == {"A", "B", "c", "d"}
    assert runner.assigned("!ls") == set()


def have_tools() -> None:
    """Skip where a kernel cannot be started."""
    for module in ("jupytext", "nbclient", "ipykernel"):
        pytest.importorskip(module, reason=f"{module} is not installed; `make setup` installs the tools of development")


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLER)
def test_every_cell_runs(runner: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    have_tools()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # notebooks write to a temporary folder
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = {*FOLDER.iterdir()}
    notebook: Any = runner.execute(FOLDER / f"{name}.md", SMALLER[name])
    assert {*FOLDER.iterdir()} == before, "nothing is written beside the notebooks"
    assert re.search(SAYS[name], "\n".join(runner.texts(notebook)), re.DOTALL)
    figures = [*runner.figures(notebook)]
    assert len(figures) == len(shown((FOLDER / f"{name}.md").read_text(encoding="utf-8")))
    assert all(figure.startswith(b"\x89PNG") for figure in figures)


@pytest.mark.slow
def test_a_cell_that_fails_is_said(runner: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    have_tools()
    path = tmp_path / "wrong.md"
    path.write_text("# Wrong\n\n```python\nA = 1\n```\n\n```python\nassert A == 1, f'A is {A}'\n```\n")
    assert [*runner.figures(runner.execute(path))] == []
    with pytest.raises(Exception, match="A is 2"):
        runner.execute(path, {"A": 2})
    with pytest.raises(ValueError, match=r"wrong\.md: no cell assigns B\."):
        runner.execute(path, {"B": 2})
