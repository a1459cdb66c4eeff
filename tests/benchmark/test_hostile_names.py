"""Exports with hostile names in every field, read by real parsers: each cell is what went in, or written out."""

import csv
import io
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from benchmark.compare.comparison import Comparison, compare
from benchmark.compare.records import open_store
from benchmark.report import escape
from benchmark.report.about import about
from benchmark.report.class_tables import class_grids
from benchmark.report.cost_table import cost_grid
from benchmark.report.export import COLUMNS, EXPORTS, to_frame
from benchmark.report.html import _runs
from benchmark.report.page_tables import verdict_grids
from benchmark.report.tables import (
    difference_grid,
    full_scale_grid,
    record_lines,
    result_grid,
)
from benchmark.report.verdict import verdicts
from benchmark.study.full_scale import FullScale, FullScaleRow
from benchmark.study.plan import Plan, Planned, write_plan
from engine.records.record import write_record
from files.frames import any_text
from mae_transfer.tasks import TASKS
from tests.benchmark.conftest import make_pretraining, make_record
from tools import export_tables

SPECIAL = (
    "|`*_~[l](http://x.y)\\\n<script>alert(1)</script> &lt; $x$ \u202eevil\u2066 \"q\" 'r' @me #1 % {x} ^\x85\x1b[1m"
)
BYTES = os.fsdecode(b"caf\xe9")  # a name that is no UTF-8
FIRST = ("=cmd()", "+1+1", "-1-1", "@SUM(1)", "# a", "1. a", "> a", "- a")


def hostile(number: int, *, surrogates: bool = True) -> str:
    return f"{FIRST[number % len(FIRST)]} {number} {SPECIAL}" + (BYTES if surrogates else "")


@pytest.fixture(params=["study", "folder"])
def comparison(request: pytest.FixtureRequest, tmp_path: Path) -> Comparison:
    """A study, whose plan names arms and tasks (JSON without half surrogates), or a folder of records with both."""
    planned = request.param == "study"
    claim, against, other = (hostile(n, surrogates=not planned) for n in range(3))
    task = hostile(3, surrogates=False)
    root = tmp_path / "runs"
    runs = []
    for number, arm in enumerate((claim, against, other)):
        for seed in (0, 1):
            for kind, metric in (("segmentation", "miou"), ("classification", "top1")):
                folder = root / f"{number}{seed}{kind} =x|`<b>$\u202e{'' if planned else BYTES}"
                record = make_record(
                    kind, "mae", seed, {metric: 50.0 + number + seed}, recipe=hostile(4), data=hostile(5),
                    data_notes=(hostile(6),), unreadable_images=(hostile(7),), departures=(hostile(8),),
                    weights_path=hostile(9), weights_report=(hostile(10),), device=hostile(11), git_commit=hostile(12),
                    libraries={hostile(13, surrogates=False): hostile(14)}, weights_sha256=hostile(number),
                )  # fmt: skip
                write_record(folder, replace(record, arm=arm))
                if kind == "segmentation":
                    with (folder / "per_class.csv").open("w", encoding="utf-8", newline="") as file:
                        csv.writer(file).writerows([("name", "iou"), (hostile(15, surrogates=False), 3.0 + number)])
                if planned:
                    name = f"{task}{kind}"
                    runs.append(Planned(folder=folder.name, phase="transfer", kind="k", task=name, arm=arm))
    if not planned:
        write_record(root / f"p{BYTES}|`", replace(make_pretraining(hostile(0), {"val_loss": 1.0}), arm=claim))
    write_record(
        root / f"failed{BYTES}`|",
        replace(make_record("classification", "mae", 7, {"top1": 1.0}, status="failed", error=hostile(16)), arm=other),
    )
    (root / f"odd|{BYTES}`").mkdir()
    (root / f"odd|{BYTES}`" / "record.json").write_text(json.dumps({hostile(17): hostile(18)}))
    if planned:
        rows = (FullScaleRow(variant=hostile(19, surrogates=False), arm=claim, values={task: 1.0}),)
        table = FullScale(source=hostile(20, surrogates=False), setting=hostile(21, surrogates=False), rows=rows)
        arms = (claim, against, other)
        plan = Plan(name=task, claim=claim, against=against, arms=arms, published=table, runs=tuple(runs))
        write_plan(root, plan)
    return compare(open_store(root, TASKS), resamples=0)


def grids(comparison: Comparison) -> list[Any]:
    found = [result_grid(comparison), difference_grid(comparison), cost_grid(comparison)]
    full = full_scale_grid(comparison)
    return found if full is None else [*found, full]


def plain(cells: Any) -> list[str]:
    return [escape.plain(cell) for cell in cells]


def test_markdown(comparison: Comparison) -> None:
    tables: list[list[list[str]]] = []
    items, inside = [], []
    tokens = MarkdownIt("commonmark").enable("table").parse(EXPORTS["md"](comparison))
    for token in tokens:
        inside.append(token.type)
        assert token.type not in ("fence", "code_block", "html_block", "blockquote_open", "ordered_list_open", "hr")
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type == "inline":
            assert {child.type for child in token.children or []} <= {"text", "softbreak"}, token.content
            text = "".join(child.content for child in token.children or [])
            if inside[-2] in ("th_open", "td_open"):
                tables[-1][-1].append(text)
            elif inside[-3:-1] == ["list_item_open", "paragraph_open"]:
                items.append(text)
    wanted = grids(comparison)
    assert [table[0] for table in tables] == [plain(grid.head) for grid in wanted]
    assert [table[1:] for table in tables] == [[plain(row) for row in grid.rows] for grid in wanted]
    assert items == plain([*about(comparison), *verdicts(comparison), *record_lines(comparison)])


def test_csv(comparison: Comparison) -> None:
    rows = list(csv.reader(io.StringIO(EXPORTS["csv"](comparison), newline="")))
    with any_text():
        wanted_rows = to_frame(comparison).to_dict("records")
    assert rows[0] == COLUMNS and len(rows) == 1 + len(wanted_rows)
    for row, wanted in zip(rows[1:], wanted_rows, strict=True):
        for name, cell in zip(COLUMNS, row, strict=True):
            if isinstance(wanted[name], str):
                assert cell in (escape.plain(wanted[name]), "'" + escape.plain(wanted[name]))
                assert not cell.startswith(("=", "+", "-", "@"))


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.cell = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.cell = True

    def handle_endtag(self, tag: str) -> None:
        self.cell = self.cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.cell:
            self.rows[-1][-1] += data


def test_html(comparison: Comparison) -> None:
    page = _Page(EXPORTS["html"](comparison))
    wanted = [*grids(comparison), *verdict_grids(comparison), *class_grids(comparison, []), _runs(comparison)]
    wanted.remove(difference_grid(comparison))  # the page has it in two
    for grid in wanted:
        for row in (grid.head, *grid.rows):
            assert [escape.visible(cell) for cell in row] in page.rows
    assert page.tags.count("script") == 1 and not {name for name in page.attributes if name.startswith("on")}
    assert {"b", "l"}.isdisjoint(page.tags)


def test_latex(comparison: Comparison) -> None:
    text = EXPORTS["latex"](comparison)
    body = re.sub(r"(?m)^%.*$", "", text)
    for tabular in re.findall(r"\\toprule(.*?)\\bottomrule", body, flags=re.DOTALL):
        lines = [line for line in tabular.splitlines() if line.endswith(r"\\")]
        assert len({len(re.findall(r"(?<!\\)&", line)) for line in lines}) == 1
    commands = set(re.findall(r"\\[a-z]+", body))
    assert commands <= {
        r"\begin", r"\end", r"\caption", r"\toprule", r"\midrule", r"\bottomrule", r"\centering", r"\resizebox",
        r"\textwidth", r"\textbackslash", r"\textasciicircum", r"\textasciitilde", r"\pm", r"\small", r"\ifdim",
        r"\width", r"\linewidth", r"\else", r"\fi", r"\height",
    }  # fmt: skip
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_json(comparison: Comparison) -> None:
    content = json.loads(EXPORTS["json"](comparison))
    assert content["arms"] == list(comparison.arms) and content["records"] == record_lines(comparison)
    assert [row["claim"] for row in content["rows"]] == [row.claim for row in comparison.rows]


def test_nothing_turns_the_text_around_and_nothing_is_mathematics(comparison: Comparison) -> None:
    for form in ("md", "csv", "json", "latex", "html"):
        text = EXPORTS[form](comparison)  # type: ignore[index]
        assert not re.search("[\u202a-\u202e\u2066-\u2069]", text), form
    assert not re.search(r"(?<!\\)\$", EXPORTS["md"](comparison))


@pytest.mark.parametrize("form", ["md", "csv", "json", "latex", "html"])
def test_the_tool_writes_and_prints_all_of_it(
    form: str, comparison: Comparison, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No UnicodeEncodeError on the way to a file or a terminal."""
    flags = [str(comparison.store.root), "--format", form, "--resamples", "0"]
    assert export_tables.main([*flags, "--out", str(tmp_path / "t")]) == 0
    assert export_tables.main(flags) == 0
    (tmp_path / "t").read_bytes().decode("utf-8")
    assert capfd.readouterr().out
