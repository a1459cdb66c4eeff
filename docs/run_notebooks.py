"""Execute the notebooks of docs/notebooks, each in a kernel of its own, and keep their figures beside them.

    python docs/run_notebooks.py
    python docs/run_notebooks.py look_inside differences

A notebook is Markdown whose blocks of Python are its cells (jupytext's format `markdown`). Nothing but its figures is
written back: NAME-1.png, NAME-2.png, ..., which its text shows. `jupytext --to ipynb docs/notebooks/NAME.md` makes a
file for Jupyter.
"""

import ast
import base64
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

FOLDER = Path(__file__).resolve().parent / "notebooks"
SECONDS = 600  # of a cell, after which it is given up


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = ()
    """Notebooks; all unless given."""
    out: Path = FOLDER
    """Folder that figures are written to."""


def main() -> None:
    """Execute the notebooks and print how long each took, and its figures."""
    args = tyro.cli(Args, description=__doc__)
    for name in args.names or sorted(path.stem for path in FOLDER.glob("*.md")):
        start = time.monotonic()
        notebook = execute(FOLDER / f"{name}.md")
        print(f"{name}: {time.monotonic() - start:.0f} s")
        for number, figure in enumerate(figures(notebook), start=1):
            path = args.out / f"{name}-{number}.png"
            path.write_bytes(figure)
            print(path)


def execute(path: Path, parameters: Mapping[str, int] | None = None) -> Any:
    """Return the notebook in a file with the outputs of its cells.

    `parameters` are given after the cell that assigns them. Raises nbclient's CellExecutionError where a cell fails,
    and ValueError for parameters that no cell assigns.
    """
    import jupytext
    from nbclient import NotebookClient

    notebook = jupytext.read(path)
    if parameters:
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        at = next((cell for cell in cells if {*parameters} <= assigned(cell.source)), None)
        if at is None:
            raise ValueError(f"{path}: no cell assigns {', '.join(parameters)}.")
        at.source += "".join(f"\n{name} = {value!r}" for name, value in parameters.items())
    client = NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": FOLDER}})
    return client.execute()


def assigned(source: str) -> set[str]:
    """Return the names that the statements of a cell assign."""
    try:
        statements = ast.parse(source).body
    except SyntaxError:  # a line for IPython
        return set()
    targets = [target for statement in statements if isinstance(statement, ast.Assign) for target in statement.targets]
    return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}


def figures(notebook: Any) -> Iterator[bytes]:
    """Yield the PNGs that the cells of an executed notebook have shown, in order."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if (picture := output.get("data", {}).get("image/png")) is not None:
                yield base64.b64decode(picture)


def texts(notebook: Any) -> Iterator[str]:
    """Yield what the cells have printed and returned as text, in order."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            yield output.get("text") or output.get("data", {}).get("text/plain", "")


if __name__ == "__main__":
    main()
