"""Text of any kind in the exports: the same cells come back, and nothing is markup or a formula."""

import csv
import html
import io
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Environment

from benchmark.report import escape
from benchmark.report.export import escape_latex

texts = st.text(st.characters() | st.sampled_from("|\\`*_[]<>&~#=+-@'\n\t$ "), max_size=20)


def unescaped(cell: str) -> str:
    return html.unescape(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cell))


@settings(max_examples=200, deadline=None)
@given(texts)
def test_markdown_comes_back(text: str) -> None:
    cell = escape.markdown(text)
    assert unescaped(cell) == escape.plain(text) and "\n" not in cell
    assert [part for part in re.split(r"(?<!\\)(?:\\\\)*\|", f"{cell}") if part != cell] == []  # one cell
    assert not re.search(r"<|://|www\.|@", cell)
    assert unescaped(escape.markdown_line(text)) == escape.plain(text)
    assert not re.match(r"[#>=+-]|\d+[.)](\s|$)", escape.markdown_line(text))


@settings(max_examples=200, deadline=None)
@given(st.lists(texts, min_size=2, max_size=3))
def test_csv_comes_back(cells: list[str]) -> None:
    file = io.StringIO()
    csv.writer(file).writerow([escape.csv(cell) for cell in cells])
    (row,) = csv.reader(io.StringIO(file.getvalue()))
    for given_cell, cell in zip(cells, row, strict=True):
        wanted = escape.plain(given_cell)
        assert cell in (wanted, f"'{wanted}")
        assert not cell.startswith(("=", "@")) and (cell[:1] not in "+-" or cell == "" or float(cell) == float(wanted))


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("-1.5", "-1.5"),
        ("+3e-4", "+3e-4"),
        ("-x", "'-x"),
        ("@a", "'@a"),
        ("a=1", "a=1"),
        ("-", "'-"),
    ],
)
def test_numbers_stay_numbers(text: str, cell: str) -> None:
    assert escape.csv(text) == cell


class _Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))


@settings(max_examples=200, deadline=None)
@given(texts)
def test_html_comes_back(text: str) -> None:
    given_text = escape.plain(text)
    page = Environment(autoescape=True).from_string('<td title="{{ x }}">{{ x }}</td>').render(x=given_text)
    parser = _Texts()
    parser.feed(escape.visible(page))
    parser.close()
    assert parser.tags == [("td", [("title", given_text)])] and "".join(parser.texts) == given_text


@settings(max_examples=200, deadline=None)
@given(texts)
def test_latex_has_no_command_of_the_text(text: str) -> None:
    found = escape_latex(text)
    for known in (
        r"\textbackslash{}",
        r"\textasciicircum{}",
        r"\textasciitilde{}",
        "$<$",
        "$>$",
        r"$\pm$",
        "$+$",
        "$-$",
    ):
        found = found.replace(known, "")
    found = re.sub(r"\\[{}$&#%_]|\{[\[*]\}", "", found)
    assert not re.search(r"[\\{}$&#%_^~\[*\n]", found)


def test_what_cannot_be_seen_is_written_out() -> None:
    assert escape.plain("a\0b\x1b[1m\n c\udce4") == r"a\x00b\x1b[1m c\udce4"
    assert escape.markdown("a|b <b> `x` __y__ box_ap") == r"a\|b &lt;b> \`x\` \_\_y\_\_ box_ap"
