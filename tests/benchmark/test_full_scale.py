"""Published full-scale values in a study, and arms that differ in their architecture by intention."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.compare.comparison import compare
from benchmark.compare.fairness import pretraining_problems, transfer_problems
from benchmark.compare.records import Stored, open_store
from benchmark.report.export import to_csv, to_json, to_latex, to_markdown
from benchmark.report.html import to_html
from benchmark.study.file import parse_study, study_text
from benchmark.study.full_scale import FullScale, FullScaleRow
from benchmark.study.plan import Plan, read_plans, write_plan
from benchmark.study.prepare import prepare
from benchmark.study.spec import Study
from mae_transfer.tasks import TASKS
from tools import run_benchmark
from tools.run_benchmark import TOOLS

GOOD = """
name: mine
seeds: [0]
differ: [architecture.position]
compare: {claim: table, against: none}
arms:
  table: {pretrain: {recipe: tiny, data: d, steps: 5}}
  none: {pretrain: {recipe: tiny, data: d, steps: 5, position: none}}
tasks:
  things: {tool: train_cls, recipe: tiny, data: d}
  probe: {tool: probe, recipe: vit_demo_patch8, data: d}
published:
  source: a paper, table 1
  setting: ViT-L, 800 epochs
  rows:
    - {arm: table, variant: sin-cos, values: {fine-tuning: 84.9, linear: 73.5}}
    - {variant: relative, values: {linear: 70.0}}
"""
TABLE = FullScale(
    source="a paper, table 1",
    setting="ViT-L, 800 epochs",
    rows=(
        FullScaleRow(variant="sin-cos", arm="table", values={"fine-tuning": 84.9, "linear": 73.5}),
        FullScaleRow(variant="relative", values={"linear": 70.0}),
    ),
)


def parse(text: str) -> Study:
    return parse_study(text, "mine.yaml", TOOLS)


def test_it_is_read_and_written(tmp_path: Path) -> None:
    study = parse(GOOD)
    assert (
        study.published is not None and study.published.table() == TABLE and study.differ == ("architecture.position",)
    )
    assert TABLE.columns == ("fine-tuning", "linear")
    assert parse(study_text(study)) == study
    plan = Plan(name="mine", differ=study.differ, published=TABLE)
    write_plan(tmp_path, plan)
    assert read_plans(tmp_path) == {tmp_path: plan}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("arm: table, v", "arm: tabel, v", r"published\.rows\[0\]\.arm: 'tabel' is not there.*Did you mean table\?"),
        ("{linear: 70.0}", "{}", r"published\.rows\[1\]\.values: is empty; give one or more"),
        ("linear: 70.0", "linear: high", r"published\.rows\[1\]\.values\.linear: 'high' is no number"),
        ("  source: a paper, table 1\n", "", r"mine\.yaml: published\.source: missing"),
        ("variant: rel", "varant: rel", r"published\.rows\[1\]\.variant: missing"),
        ("  setting:", "  seting: x\n  setting:", r"published\.seting: no such key.*Did you mean setting\?"),
        ("[architecture.position]", "[position]", r"differ\[0\]: 'position' is not there; give architecture for all"),
        ("[architecture.position]", "architecture", r"differ: 'architecture' must be a list of one or more"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ValueError, match=message):
        parse(GOOD.replace(old, new))


def test_another_vit_is_refused_unless_the_study_says_so(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    file = tmp_path / "mine.yaml"
    file.write_text(GOOD)
    made = prepare(str(file), TOOLS, studies=tmp_path, out=tmp_path / "out", root=tmp_path)
    made.refuse()
    argv = {run.name: run.command for run in made.runs}
    for name in ("things-none-seed0", "probe-none-seed0"):  # the transfer takes the positions of the weights
        assert argv[name][argv[name].index("--init-architecture") + 1] == "file"
    probes = [text for name, text in argv.items() if name.startswith("probe-")]  # which share their features
    assert len(probes) > 1
    assert all(text[text.index("--cache") + 1] == str(tmp_path / "out/features") for text in probes)
    for given in ("", "differ: [architecture.embed_dim]\n"):
        file.write_text(GOOD.replace("differ: [architecture.position]\n", given))
        wanted = r"arms\.none\.pretrain: another ViT than that of table \(position: sincos -> none\); .*state "
        with pytest.raises(ValueError, match=wanted + r"`differ: \[architecture\.position\]`"):
            prepare(str(file), TOOLS, studies=tmp_path, out=tmp_path / "out", root=tmp_path).refuse()


def test_fairness_leaves_out_what_may_differ_and_nothing_else(record: Any) -> None:
    def stored(arm: str, **vit: Any) -> Stored:
        whole = {"position": "sincos", "depth": 6, **vit}
        made = record("classification", arm, 0, {"top1": 1.0}, architecture=whole, config={"backbone": whole})
        return Stored(folder=Path(arm), record=made, arm=arm, line=None)

    pair = [stored("a"), stored("b", position="none")]
    fields = ["architecture.position", "config.backbone.position"]
    assert [line.partition(":")[0] for line in transfer_problems(pair)] == fields
    assert pretraining_problems(pair) == ["architecture.position: sincos -> none (from a to b)"]
    for differ in (("architecture.position",), ("architecture",)):
        assert transfer_problems(pair, differ) == [] and pretraining_problems(pair, Plan(name="x", differ=differ)) == []
    deeper = [stored("a"), stored("b", position="none", depth=12)]
    assert [line.partition(":")[0] for line in transfer_problems(deeper, ("architecture.position",))] == [
        "architecture.depth",
        "config.backbone.depth",
    ]
    assert transfer_problems(deeper, ("architecture",)) == []


def test_published_values_stand_in_a_table_of_their_own(whole_study: Any) -> None:
    rows = [
        {"variant": "pixels", "arm": "mae", "values": {"linear": 73.5, "fine-tuning": 84.9}},
        {"variant": "tokens", "arm": None, "values": {"linear": 71.6}},
    ]
    table = {"source": "a paper, table 1d", "setting": "ViT-L", "rows": rows}
    plan = {"name": "s", "published": table, "differ": ["architecture.position"]}
    runs = []
    for folder in sorted(path.parent for path in whole_study.root.rglob("record.json")):
        task, _, arm = folder.name.partition("-")
        phase = "pretrain" if task == "pretrain" else "transfer"
        run = {"folder": folder.name, "phase": phase, "kind": task, "task": None if phase == "pretrain" else task}
        runs.append({**run, "arm": arm.partition("-")[0]})
    (whole_study.root / "study.json").write_text(json.dumps({**plan, "runs": runs}))
    comparison = compare(open_store(whole_study.root, TASKS), resamples=0)
    text = to_markdown(comparison)
    before, _, after = text.partition("## Published at full scale, no part of the comparison")
    assert "73.5" not in before and "84.9" not in before
    pixels, tokens = (next(row for row in after.splitlines() if name in row) for name in ("| pixels", "| tokens"))
    cells = [cell.strip() for cell in pixels.strip("|").split("|")]
    assert cells[:5] == ["pixels", "73.5", "84.9", "MAE", "63.55 \N{PLUS-MINUS SIGN} 0.78 (2)"]
    assert [cell.strip() for cell in tokens.strip("|").split("|")][:5] == ["tokens", "71.6", "-", "not run", "-"]
    assert "PUBLISHED by a paper, table 1d: ViT-L" in after and "arms differ in architecture.position" in after
    page = to_html(comparison)
    assert '<section class="published"><h2 id="full-scale">' in page and "PUBLISHED fine-tuning" in page
    assert "published at full scale,pixels,linear,mae,published,,,73.5" in to_csv(comparison)
    assert json.loads(to_json(comparison))["published_full_scale"]["rows"][1]["variant"] == "tokens"
    assert "PUBLISHED linear" in to_latex(comparison)


@pytest.mark.parametrize(
    "name",
    [*sorted(path.parent.name for path in run_benchmark.STUDIES.glob("ablation_*/study.yaml")), "scaling"],
)
def test_the_shipped_files_state_what_they_vary(name: str) -> None:
    path = run_benchmark.STUDIES / name / "study.yaml"
    study = parse_study(path.read_text(), path.name, TOOLS)
    assert study.name == name and len(study.seeds) == 2 and study.published is not None
    assert parse(study_text(study)) == study
    if name == "scaling":
        return
    given = [arm.pretrain.options for arm in study.arms if arm.pretrain is not None]
    assert len(given) == len(study.arms) and {values["steps"] for values in given} == {500}
    published = yaml.safe_load(path.read_text())["published"]
    assert "arXiv" in published["source"] and "epochs" in published["setting"]
    assert study.compare.claim in {row.arm for row in study.published.rows}
