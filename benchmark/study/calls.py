"""A call of a tool in a study's folder: where its paths lie, which runs make them, what it calls for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.study.calling import Tools
from benchmark.study.run import Run
from benchmark.study.spec import Study
from engine.functions import file_of, split_name

Options = Mapping[str, Any]  # flags by name


class Calls:
    """A study in its folder."""

    def __init__(self, study: Study, *, out: Path, root: Path, tools: Tools) -> None:
        """`root`: where relative paths start."""
        self.study, self.out, self.root, self.tools = study, out, root, tools
        self.made = {item.name for item in study.scenes} | {item.name for item in study.tokenizers}

    def place(self, path: str) -> Path:
        """Return a path of the study file: below the study's folder for what it makes itself, else below the root."""
        return (self.out if {*Path(path).parts[:1]} & self.made else self.root) / path

    def call(
        self,
        name: str,
        tool: str,
        recipe: str | None,
        given: Options,
        *,
        out: Path,
        records: tuple[Path, ...] = (),
        **more: Any,
    ) -> Run:
        """Return a run; what makes no configuration is its `fault`. `given`: its flags but `out`."""
        job, fault = None, None
        try:
            job = self.tools[tool].job(recipe, {"out": out, **given})
        except (ValueError, OSError) as error:
            fault = str(error).rstrip(".")
        return Run(
            name=name, tool=tool, recipe=recipe, job=job, fault=fault, out=out, logs=self.out / "logs",
            records=records or (out,), **more,
        )  # fmt: skip

    def placed(self, tool: str, recipe: str, options: Options) -> tuple[dict[str, Any], list[Path]]:
        """Return flags with their paths in place, and the files that they name."""
        named, functions = self.tools[tool].files(recipe), self.tools[tool].functions(recipe)
        placed, files = {}, []
        for name, value in options.items():
            if name in named and value is not None:
                path = self.place(str(value))
                files.append(path)
                value = type(value)(path)
            if name in functions and value is not None and (file := file_of(value)) is not None:
                files.append(self.place(str(file)))
                value = f"{files[-1]}:{split_name(value)[1]}"
            placed[name] = value
        return placed, files

    def made_by(self, *paths: Path) -> tuple[str, ...]:
        """Return the names of the runs that make these files and folders."""
        return tuple(sorted(name for name in self.made if any(path.is_relative_to(self.out / name) for path in paths)))

    def not_made(self, *paths: Path) -> tuple[Path, ...]:
        """Return those of the files and folders that no run of the study makes."""
        return tuple(path for path in paths if not path.is_relative_to(self.out))
