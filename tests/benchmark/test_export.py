"""The four formats: what they print, that they escape, and that CSV comes back as it went."""

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmark.compare.comparison import Comparison, compare
from benchmark.compare.records import open_store
from benchmark.report.export import escape_latex, to_csv, to_frame, to_json, to_latex, to_markdown, write_tables
from engine.records.record import RunRecord
from files.frames import any_text
from mae_transfer.tasks import TASKS
from tools import export_tables


def comparison_of(study: Any) -> Comparison:
    return compare(open_store(study.root, TASKS))


def md_rows(text: str, title: str) -> dict[tuple[str, ...], list[str]]:
    part = text.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in part.splitlines() if line.startswith("|")]
    keys = 3 if title == "Differences" else 2
    return {tuple(cell.strip() for cell in cells[:keys]): [cell.strip() for cell in cells[keys:]] for cells in lines}


def test_markdown_cells(whole_study: Any) -> None:
    text = to_markdown(comparison_of(whole_study))
    rows = md_rows(text, "Transfer")
    assert rows["classification", "top1"] == ["42.00 ± 2.83 (2)", "60.50 ± 0.71 (2)", "63.55 ± 0.78 (2)", "0 of 6"]
    assert ("segmentation", "aacc") not in rows  # no run has it
    rows = md_rows(text, "Differences")
    # t = 3.05 / 0.05 with one degree of freedom: p 0.0104, times two of Holm's three steps
    assert rows["classification", "top1", "supervised"] == [
        "+3.05 ± 0.07", "+2.41 to +3.69", "2", "-", "0.01", "0.5 (least 0.5)", "0.021",
        "MAE transfers better than supervised: supported (two seeds: too few to rely on)", "-", "-",
        "transfer 100 %", "-",
    ]  # fmt: skip
    assert ("segmentation", "aacc", "-") not in rows
    rows = md_rows(text, "Cost")
    assert rows["random init", "nothing"] == [
        *["-"] * 7, "42.00 ± 2.83 (2)", "60 (2)", "1.50 ± 0.71 (2)", "60 (2)", "11.50 ± 0.71 (2)", "60 (2)",
    ]  # fmt: skip
    assert rows["MAE", "scenes (here)"] == [
        "1", "2.00", "6,400", "3.000", "60", "400", "512",
        "63.55 ± 0.78 (2)", "60 (2)", "11.00 ± 2.83 (2)", "60 (2)", "28.51 ± 0.72 (2)", "60 (2)",
    ]  # fmt: skip
    assert "estimate" in text and "two seeds" in text and "Published" not in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert widths == {7, 16}


def test_refusal_stands_in_place_of_the_difference(whole_study: Any, record: Callable[..., RunRecord]) -> None:
    other = record("classification", "mae", 1, {"top1": 64.1}, data="a|b", samples_seen=6)
    whole_study.add("classification-mae-seed1", other)
    text = to_markdown(comparison_of(whole_study))
    cell = md_rows(text, "Differences")["classification", "top1", "-"][0]
    assert cell.startswith("refused: data: scenes -> a\\|b") or cell.startswith("refused: data: a\\|b -> scenes")
    assert cell.endswith("(and 1 more)")
    assert "Refused, classification: samples_seen: " in text


def test_json_holds_the_typed_values(whole_study: Any) -> None:
    content = json.loads(to_json(comparison_of(whole_study)))
    row = next(row for row in content["rows"] if row["metric"] == "box_ap")
    assert row["values"]["mae"] == {"0": 9.0, "1": 13.0} and row["arms"]["mae"]["n"] == 2
    item = row["contrasts"][1]
    assert (item["reference"], item["verdict"], item["mean"], item["p"]) == ("supervised", "inconclusive", 0.0, 1.0)
    assert (item["judged"], item["caution"]) == ("MAE transfers better than supervised", "")
    assert (row["against"], row["others"]) == ("supervised", ["supervised"])
    assert item["interval"] == pytest.approx([-12.706205, 12.706205], abs=1e-6)
    assert item["permutation"] == {"p": 1.0, "smallest": 0.5} and item["needed"]["seeds"] is None
    assert len(content["verdicts"]) == 5 and content["published"] == []
    assert content["about"][0].startswith("About two weights files, one of each arm: MAE (pre-trained here once) and ")
    assert content["declared"] == {"pretrain_seeds": "one", "margins": {}, "looks": [], "groups": {}}


def test_csv_comes_back(whole_study: Any) -> None:
    comparison = comparison_of(whole_study)
    text = to_csv(comparison)
    back = pd.read_csv(io.StringIO(text), dtype={"seed": "Int64", "n": "Int64"}, keep_default_na=False, na_values=[""])
    back["note"] = back["note"].fillna("")
    with any_text():
        made = to_frame(comparison)
    made.columns = back.columns = [*made.columns]
    pd.testing.assert_frame_equal(back, made, check_exact=True, check_dtype=False)
    cells = {
        (r["table"], r["task"], r["metric"], r["arm"], r["statistic"], r["seed"]): r["value"]
        for r in csv.DictReader(io.StringIO(text))
    }
    assert float(cells["transfer", "segmentation", "miou", "mae", "value", "1"]) == 29.02
    assert float(cells["transfer", "segmentation", "miou", "mae-supervised", "value", "1"]) == 29.02 - 31.0
    assert cells["transfer", "detection", "mask_ap", "mae", "mean", ""] == ""
    assert float(cells["cost", "pretraining", "training_flops", "mae", "mean", ""]) == 3e9
    assert float(cells["pretraining", "supervised", "top1", "supervised", "lowest", ""]) == 91.0


def test_csv_notes_the_refusal(whole_study: Any, record: Callable[..., RunRecord]) -> None:
    whole_study.add("detection-mae-seed1", record("detection", "mae", 1, {"box_ap": 13.0}, data='x, "y"'))
    frame = pd.read_csv(io.StringIO(to_csv(comparison_of(whole_study))))
    row = frame[(frame.metric == "box_ap") & (frame.arm == "mae-supervised")]
    assert row["n"].tolist() == [0] and row["value"].isna().all()
    assert row["note"].str.contains('x, "y"').all() and row["note"].str.startswith("refused: data: ").all()


def test_latex_is_booktabs_with_balanced_rows(whole_study: Any) -> None:
    text = to_latex(comparison_of(whole_study))
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == text.count(r"\begin{tabular}") == 3
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {5, 14}
    assert not any(line.startswith("detection & box\\_ap50") for line in body)  # no run has it
    row = next(line for line in body if line.startswith("classification"))
    assert r"42.00 $\pm$ 2.83 (2)" in row
    row = next(line for line in body if line.startswith("classification & top1 & supervised"))
    assert r"$+$3.05 $\pm$ 0.07 & $+$2.41 to $+$3.69 & 2 & -- & 0.01" in row and "supported" in row
    assert r"95 \% interval" in text
    uncommented = [line.removesuffix("{%") for line in text.splitlines() if not line.startswith("%")]
    assert not any(re.search(r"(?<!\\)[%#_^~]", line) for line in uncommented)


@pytest.mark.parametrize(
    ("plain", "escaped"),
    [
        ("box_ap 50 % & more", r"box\_ap 50 \% \& more"),
        ("a\\b{c}$1#2^~", r"a\textbackslash{}b\{c\}\$1\#2\textasciicircum{}\textasciitilde{}"),
        ("-1.50 to +0.25", r"$-$1.50 to $+$0.25"),
        ("-", "--"),
        ("2.00 \N{PLUS-MINUS SIGN} - (1)", r"2.00 $\pm$ -- (1)"),
        ("pre-training 1-2", "pre-training 1-2"),
        ("x -> y", r"x -$>$ y"),
    ],
)
def test_latex_escaping(plain: str, escaped: str) -> None:
    assert escape_latex(plain) == escaped


def test_output_is_deterministic(whole_study: Any, tmp_path: Path) -> None:
    first = [path.read_bytes() for path in write_tables(comparison_of(whole_study), tmp_path / "one")]
    second = [path.read_bytes() for path in write_tables(comparison_of(whole_study), tmp_path / "two")]
    assert first == second
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "table.csv",
        "table.html",
        "table.json",
        "table.md",
        "table.tex",
    ]


@pytest.mark.parametrize("form", ["md", "csv", "json", "latex"])
def test_tool_prints_and_writes_the_same(
    form: str, whole_study: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(whole_study.root / "detection-mae-seed1")
    assert export_tables.main([str(whole_study.root), "--format", form]) == 0
    printed = capsys.readouterr()
    assert ("19 records read" in printed.err) == (form == "csv")
    assert export_tables.main([str(whole_study.root), "--format", form, "--out", str(tmp_path / "t")]) == 0
    assert (tmp_path / "t").read_text(encoding="utf-8") == printed.out


def test_tool_refuses_a_folder_without_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export_tables.main([str(tmp_path / "none")]) == 1
    assert "none: no such folder" in capsys.readouterr().err
