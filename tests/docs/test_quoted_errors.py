"""The messages that pages quote are those of the code, word by word."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("backbones", "classification", "detection", "engine", "files", "segmentation")
PAGES = ("docs/detection.md", "docs/segmentation.md")


def quoted(text: str) -> list[list[str]]:
    """Return the messages in the first column of the table of usual errors, each in its parts between `...`."""
    table = text.partition("## Usual errors")[2].partition("\n\nWhat is no error")[0]
    return [re.split(r"\.\.\.", message) for message in re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)]


@cache
def said() -> tuple[str, ...]:
    """Return the texts of the code, those of one literal over several lines as one, `{}` where a value stands."""
    found = []
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


def in_order(parts: list[str], text: str) -> bool:
    """Whether a text has the parts one after the other."""
    at = 0
    for part in (part.strip() for part in parts):
        at = text.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True


@pytest.mark.parametrize("page", PAGES)
def test_quoted_messages_are_those_of_the_code(page: str) -> None:
    messages = quoted((ROOT / page).read_text(encoding="utf-8"))
    assert len(messages) >= 8
    wrong = [parts for parts in messages if not any(in_order(parts, text) for text in said())]
    assert wrong == []


def test_another_message_is_found() -> None:
    (parts,) = quoted("## Usual errors\n| message |\n| `...: holds ... eggs` | way |\n\nWhat is no error")
    assert parts == ["", ": holds ", " eggs"]
    assert in_order(parts, "{}: holds {} eggs") and not in_order(parts, "eggs: holds")
