"""Pages of the site that do not lie in docs/: README, studies with reports, recipes, the reference from docstrings.

mkdocs calls the `on_*` functions (`hooks` in mkdocs.yml). Links between files of the repository become links between
pages; where a file has no page the words of the link stay.
"""

import configparser
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
TOP = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
REFERENCE = (
    "mae_transfer",
    "backbones",
    "backbones.weights",
    "engine",
    "metrics",
    "classification",
    "detection",
    "segmentation",
)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
FETCHED = "https://unpkg.com/iframe-worker/shim"  # what the plugin `offline` adds

_pages: dict[str, str] = {}
"""From a file of the repository to its page or file of the site."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add studies and reference to the navigation."""
    sys.path.insert(0, str(ROOT))
    assert isinstance(config.nav, list)
    config.nav.insert(-2, {"Reports": [{_title(path): f"studies/{path.parent.name}.md"} for path in _studies()]})
    config.nav.insert(-1, {"Reference": [{name: f"reference/{name}.md"} for name in REFERENCE]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and the files that reports are made of."""
    _pages.clear()
    _pages.update({f"docs/{file.src_uri}": file.src_uri for file in files})
    made: dict[str, str | bytes] = {}
    for name, page in TOP.items():
        _pages[name], made[page] = page, (ROOT / name).read_text(encoding="utf-8")
    for path in _studies():
        name = path.parent.name
        _pages[f"studies/{name}/README.md"] = _pages[f"studies/{name}"] = f"studies/{name}.md"
        made[f"studies/{name}.md"] = path.read_text(encoding="utf-8")
        for other in sorted(path.parent.iterdir()):
            if other.suffix in (".html", ".csv", ".yaml", ".png", ".xz"):
                uri = f"studies/{name}/{other.name}"
                _pages[uri], made[uri] = uri, other.read_bytes()
    made["recipes.md"] = _recipes()
    made |= {f"reference/{package}.md": _reference(package) for package in REFERENCE}
    for uri, content in made.items():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the page with its links between files of the repository as links between pages."""
    uri = page.file.src_uri
    source = next((name for name, made in _pages.items() if made == uri and name.endswith(".md")), f"docs/{uri}")

    def linked(found: re.Match[str]) -> str:
        picture, words, target = found.groups()
        path, hash_, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", target):
            return found[0]
        wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if wanted not in _pages:
            return words
        relative = posixpath.relpath(_pages[wanted], posixpath.dirname(uri) or ".")
        return f"{picture}[{words}]({relative}{hash_}{anchor})"

    return LINK.sub(linked, markdown)


def _studies() -> list[Path]:
    return sorted(ROOT.glob("studies/*/README.md"))


def _title(path: Path) -> str:
    return path.parent.name


def _recipes() -> str:
    """Return the page of all recipes: what each is, the published number, in what it departs."""
    from docs import recipe_costs
    from mae_transfer.tasks import TASKS

    kept = recipe_costs.read()
    lines = [
        "# Recipes",
        "",
        "What `python tools/TOOL.py RECIPE` trains. The search above finds a recipe by name, paper or data.",
        "",
        "## What a recipe costs",
        "",
        f"{recipe_costs.CAPTION} [Cost of use](studies.md#cost-of-use) is measured, of trained runs.",
    ]
    for spec in TASKS.values():
        if not spec.recipes:
            continue
        lines += ["", f"## {spec.name} (`tools/{spec.tool}.py`)"]
        if spec.plan is not None:
            lines += ["", *recipe_costs.table(spec, kept)]
        for name, recipe in spec.recipes.items():
            text = _plain(recipe.__doc__ or "")
            lines += ["", f"### `{name}`", "", text]
            if departs := getattr(recipe, "departs", ()):
                lines += ["", "Departs from what it reproduces:", "", *(f"* {way}" for way in departs)]
    return "\n".join(lines) + "\n"


def _plain(doc: str) -> str:
    """Return a docstring without its indentation, commands as code."""
    import inspect

    text = inspect.cleandoc(doc)
    return re.sub(r"(?m)^((?:python|torchrun) .*(?:\\\n.*)*)$", r"```\n\1\n```", text)


def _reference(package: str) -> str:
    """Return the page of a package: every module of its own that is not private."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    folder = ROOT / package.replace(".", "/")
    modules = [path.stem for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")]
    lines = [f"# {package}", "", f"::: {package}", "    options: {show_submodules: false, members: true}"]
    for module in modules:
        lines += ["", f"::: {package}.{module}"]
    return "\n".join(lines) + "\n"


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Return the page with our own script where the theme would fetch one from the network."""
    return output.replace(FETCHED, posixpath.relpath("worker.js", posixpath.dirname(page.file.src_uri) or "."))


def on_post_build(config: MkDocsConfig) -> Any:
    """Leave the import path as it was."""
    sys.path.remove(str(ROOT))
