"""What the documents name is there: links, files of the project, tools and their flags."""

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tools.run_benchmark import TOOLS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("studies/*/*.md")])
MADE = {"runs", "data", "pictures", "build", "dist", "wheels"}  # by those who use the project
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")} - MADE
COMMAND = re.compile(r"python tools/(\w+)\.py((?: [^\n#`|]*(?:\\\n[^\n#`|]*)*)?)")
FLAG = re.compile(r"(?<!\S)--([a-z][a-z0-9-]*)")
OF_ALL = {"help", "help-all"}


def named(text: str) -> Iterator[str]:
    """Yield the paths of the project in code spans; patterns and placeholders are left out."""
    for span in re.findall(r"`([^`\n]+)`", text):
        for word in span.split():
            plain = word.split("#")[0].rstrip(".,:;)")
            placeholder = re.search(r"[A-Z]{3,}", plain.rpartition("/")[0])
            if plain.split("/")[0] in FOLDERS and re.fullmatch(r"[\w./-]+/[\w./-]*", plain) and not placeholder:
                yield plain


@pytest.mark.parametrize("document", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS])
def test_links_and_paths(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:|#", link)]
    missing = [link for link in links if not (document.parent / link.split("#")[0]).exists()]
    missing += [path for path in named(text) if not (ROOT / path).exists()]
    assert missing == []


@cache
def flags_of(tool: str) -> frozenset[str]:
    """Return the flags of a tool, of all its forms and recipes."""
    if tool in TOOLS and TOOLS[tool].recipes:
        return frozenset(flag for recipe in TOOLS[tool].recipes for flag in TOOLS[tool].types(recipe))
    module = import_module(f"tools.{tool}")
    found = set[str]()
    if tool == "plan_run":
        found |= {flag for name in ("pretrain", "train_cls", "train_det", "train_seg") for flag in flags_of(name)}
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and is_dataclass(kind)]
    while kinds:
        kind: Any = kinds.pop()
        found |= {f.name for f in fields(kind)}
    return frozenset(found)


def commands() -> Iterator[tuple[str, str, str]]:
    texts = {path: path.read_text(encoding="utf-8") for path in DOCUMENTS}
    for path in sorted((ROOT / "tools").glob("*.py")):
        texts[path] = path.read_text(encoding="utf-8").split('"""')[1]
    for path, text in texts.items():
        for tool, rest in COMMAND.findall(text):
            yield str(path.relative_to(ROOT)), tool, rest


def test_commands_name_tools_and_flags_that_are_there() -> None:
    wrong = []
    for document, tool, rest in commands():
        if not (ROOT / "tools" / f"{tool}.py").exists():
            wrong.append(f"{document}: no tools/{tool}.py")
            continue
        for flag in FLAG.findall(rest):
            name = flag.replace("-", "_")
            known = flags_of(tool)
            if flag not in OF_ALL and not {name, name.removeprefix("no_")} & known:
                wrong.append(f"{document}: {tool}.py has no --{flag}")
    assert wrong == []
