"""The page: self-contained, escaped, with every number of the tables, and pictures of all arms on one image."""

import base64
import hashlib
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmark.compare.comparison import compare
from benchmark.compare.records import frame, open_store
from benchmark.report.class_tables import class_grids
from benchmark.report.cost_table import cost_grid
from benchmark.report.export import to_markdown
from benchmark.report.figures import WIDEST, cost_picture, curves_picture, differences_picture, embedded, same_pictures
from benchmark.report.html import to_html
from benchmark.report.page_tables import verdict_grids
from benchmark.report.tables import difference_grid, result_grid
from benchmark.runner.status import state_of
from engine.images.file import VARIABLE, UnreadableImageError
from engine.records.record import read_record, write_record
from files.locking import locked
from mae_transfer.tasks import TASKS
from tests.benchmark.fake_tools import demo
from tools import export_tables


class Page(HTMLParser):
    """Cells of a page, and what a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        if tag == "td":
            self.cells.append("")
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td":
            self.cells[-1] += data

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()


@pytest.fixture
def runs(whole_study: Any) -> Path:
    return whole_study.root


def test_page_has_every_cell_and_fetches_nothing(runs: Path) -> None:
    comparison = compare(open_store(runs, TASKS))
    page = Page(to_html(comparison))
    for grid in (result_grid(comparison), *verdict_grids(comparison), cost_grid(comparison)):
        for row in grid.rows:
            assert "\n".join(row) in "\n".join(page.cells)
    assert all(url.startswith(("data:", "#")) for url in page.fetched)
    assert any(url.startswith("data:image/png;base64,") for url in page.fetched)


def test_the_page_is_made_for_wide_and_narrow_screens(runs: Path) -> None:
    """What is acted on has few columns; a narrow screen has cards with the head's names, and charts of its own."""
    comparison = compare(open_store(runs, TASKS))
    acted_on, tests = verdict_grids(comparison)
    assert acted_on.head[-2:] == ("verdict", "to settle it") and len(acted_on.head) == 8
    assert {*acted_on.head, *tests.head} == {*difference_grid(comparison).head}
    text = to_html(comparison)
    assert text.count("<source media=") == text.count("<picture>") >= 2
    assert '<td data-label="to settle it"' in text and "flex-wrap: wrap" in text
    for picture in (differences_picture, cost_picture):
        urls = (picture(comparison), picture(comparison, narrow=True))
        sizes = [Image.open(BytesIO(base64.b64decode(str(url).partition(",")[2]))).width for url in urls]
        # on 368 pixels a point of the text is 130 / 72 * 368 / 442 pixels, so 8 points are 12; wide they were 6
        assert sizes[1] == 442 < sizes[0]


def test_arms_without_a_cost_are_named_under_the_picture(runs: Path) -> None:
    """As those of public files, which no recorded pre-training has made."""
    assert "Not drawn" not in to_html(compare(open_store(runs, TASKS)))
    (made,) = [path for path in runs.rglob("record.json") if read_record(path.parent).task == "mae"]
    made.unlink()
    text = to_html(compare(open_store(runs, TASKS)))
    assert "Not drawn, since the cost of their pre-training is not recorded: MAE.</figcaption>" in text


def test_text_of_records_is_escaped(runs: Path) -> None:
    folder = next(path.parent for path in sorted(runs.rglob("record.json")))
    record = read_record(folder)
    write_record(folder, type(record)(**{**record.__dict__, "recipe": "<script>alert(1)</script>"}))
    text = to_html(compare(open_store(runs, TASKS)))
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)" in text


def test_pictures_of_all_arms_on_the_same_image(runs: Path) -> None:
    comparison = compare(open_store(runs, TASKS))
    mine = [item for item in comparison.store.completed if item.record.task == "segmentation"]
    for item in mine:
        (item.folder / "pictures").mkdir()
        Image.new("RGB", (2000, 100), "red").save(item.folder / "pictures" / "predictions.png")
        names = ("pictures/predictions.png", f"pictures/{item.record.weights_source}.png")
        write_record(item.folder, type(item.record)(**{**item.record.__dict__, "pictures": names}))
    comparison = compare(open_store(runs, TASKS))
    mine = [item for item in comparison.store.completed if item.record.task == "segmentation"]
    ((name, shown),) = same_pictures(mine, comparison.arms)
    assert name == "pictures/predictions.png"
    assert [arm for arm, _ in shown] == [
        arm for arm in comparison.arms if arm in {i.record.weights_source for i in mine}
    ]
    assert len({Path(path).parent.parent.name for _, path in shown}) == len(shown)
    assert embedded(shown[0][1]).startswith("data:image/jpeg;base64,")
    page = Page(to_html(comparison))
    assert sum(url.startswith("data:image/jpeg") for url in page.fetched) == len(shown)
    out = runs.parent / "without.html"
    assert export_tables.main([str(runs), "--format", "html", "--no-images", "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert not any(url.startswith("data:image/jpeg") for url in Page(text).fetched)
    assert "pictures that show images of the data are left out" in text


def test_wide_pictures_are_made_small(tmp_path: Path) -> None:
    Image.new("RGB", (3 * WIDEST, 300)).save(tmp_path / "wide.png")
    data = base64.b64decode(embedded(str(tmp_path / "wide.png")).partition(",")[2])
    assert Image.open(BytesIO(data)).size == (WIDEST, 100)


@pytest.mark.filterwarnings("ignore:Image size:PIL.Image.DecompressionBombWarning")
def test_pictures_that_cannot_be_read_are_named_with_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    Image.new("1", (1500, 1000)).save(tmp_path / "large.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "large.png").read_bytes()[:60])
    for name, reason in (("large", "more than 1 megapixels"), ("cut", "unreadable image")):
        with pytest.raises(UnreadableImageError, match=rf"{name}\.png: .*{reason}"):
            embedded(str(tmp_path / f"{name}.png"))


def test_classes_by_gain_and_one_without_a_score(runs: Path) -> None:
    scores = {"random": "a,10.0,1\nb,20.0,1\n", "supervised": "a,30.0,1\nb,40.0,1\n", "mae": "a,31.0,1\nb,45.5,1\n"}
    comparison = compare(open_store(runs, TASKS))
    assert class_grids(comparison, []) == []
    for item in comparison.store.completed:
        if item.record.task == "segmentation":
            rows = scores[item.record.weights_source]
            if item.record.weights_source == "random" and item.record.seed == 1:
                rows = "a,12.0,1\nb,,1\n"
            (item.folder / "per_class.csv").write_text(f"name,iou,acc\n{rows}", encoding="utf-8")
    (grid,) = class_grids(comparison, [])
    assert grid.head == ("class", "random init", "supervised", "MAE", "MAE - supervised")
    assert grid.rows[0] == ("b", "-", "40.00", "45.50", "+5.50")
    assert grid.rows[1][0] == "a" and grid.rows[1][2:] == ("30.00", "31.00", "+1.00")


def test_a_table_of_classes_without_its_column_is_named(runs: Path) -> None:
    comparison = compare(open_store(runs, TASKS))
    item = next(item for item in comparison.store.completed if item.record.task == "detection")
    (item.folder / "per_class.csv").write_text("name,ap\na,1\n", encoding="utf-8")
    (item.folder / "metrics.csv").write_text("step,name,value\n1,loss,0.5\n2,lo", encoding="utf-8")
    page = to_html(comparison)
    assert f"Scores of classes left out: {item.folder}/per_class.csv: no column box_ap" in page
    assert f"Curve left out: {item.folder}/metrics.csv: line 3 is no step, name and value" in page
    stray = item.folder.parent / "elsewhere.png"
    Image.new("RGB", (8, 8)).save(stray)
    for name in (str(stray), "../elsewhere.png"):
        write_record(item.folder, replace(item.record, pictures=(name,)))
        assert any("is no path inside the record's folder" in line for line in open_store(runs, TASKS).unreadable)


def test_damaged_files_of_a_run_are_named_and_cost_nothing_else(runs: Path) -> None:
    whole = compare(open_store(runs, TASKS))
    item = next(item for item in whole.store.completed if item.record.task == "segmentation")
    other = next(it for it in whole.store.completed if it.record.task == "segmentation" and it.folder != item.folder)
    files = {"metrics.csv": "step,name,value\r\n1,loss,0.5\r\n", "per_class.csv": "name,iou\na,10.0\n"}
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
    for one in (item, other):
        for name, text in files.items():
            (one.folder / name).write_text(text, newline="")
        write_record(one.folder, replace(one.record, files_sha256=digests))
    page = to_html(compare(open_store(runs, TASKS)))
    assert "File left out" not in page
    for name, text in files.items():
        (item.folder / name).write_text(text.replace("0.5", "1.5").replace("10.0", "90.0"), newline="")
    comparison = compare(open_store(runs, TASKS))
    assert comparison.rows == whole.rows
    page, table = to_html(comparison), to_markdown(comparison)
    for name in files:
        for text in (page, table):
            assert f"File left out: {item.folder}/{name}: is not the file that its record speaks of" in text
    (grid,) = class_grids(comparison, [])
    assert len(grid.head) == 2  # the arm of the other run alone
    (other.folder / "metrics.csv").unlink()
    assert curves_picture(compare(open_store(runs, TASKS)), []) is None


def test_pictures_and_tables_behind_links_are_named_and_not_shown(runs: Path) -> None:
    away = runs.parent / "away"
    away.mkdir()
    Image.new("RGB", (20, 10), "red").save(away / "predictions.png")
    (away / "results.jsonl").write_text('{"image_id": "a"}\n')
    (away / "metrics.csv").write_text("step,name,value\n1,loss,0.5\n")
    (away / "per_class.csv").write_text("name,iou\na,10.0\n")
    (away / "backbone.safetensors").write_text("")
    whole = compare(open_store(runs, TASKS))
    names = ("metrics.csv", "per_class.csv", "results.jsonl", "backbone.safetensors", "pictures/predictions.png")
    for item in whole.store.completed:
        (item.folder / "pictures").mkdir()
        for name in names:
            (item.folder / name).symlink_to(away / Path(name).name)
    comparison = compare(open_store(runs, TASKS))
    assert comparison.rows == whole.rows
    text, page = to_markdown(comparison), to_html(comparison)
    assert "data:image/jpeg" not in page and curves_picture(comparison, []) is None
    assert not class_grids(comparison, [])
    first = next(item.folder for item in whole.store.completed if item.line is not None)
    for name in names[:2]:
        assert f"{first / name} is a link to {away / name};" in text
    assert f"pictures/predictions.png is a link to {away / 'predictions.png'};" in text
    assert f"results.jsonl is a link to {away / 'results.jsonl'};" in text
    assert f"{runs / 'pretrain-mae/backbone.safetensors'} is a link to {away / 'backbone.safetensors'};" in text


def test_a_killed_run_is_told_from_one_at_work_wherever_its_status_is(runs: Path, tmp_path: Path) -> None:
    folder = runs / "detection-mae-seed0"
    write_record(folder, replace(read_record(folder), status="running", steps=3))

    def told() -> set[str]:
        store = open_store(runs, TASKS)
        comparison = compare(store)
        (line,) = (line for line in to_markdown(comparison).splitlines() if "detection-mae-seed0" in line)
        cells = Page(to_html(comparison)).cells
        (row,) = frame([item for item in store.stored if item.folder == folder]).status
        run = next(r for r in demo(tmp_path) if r.name == "detection-mae-seed0")
        states = {state_of(replace(run, out=folder, records=(folder,)), []).partition(" at ")[0]}
        return states | {line.partition("Left out, ")[2].partition(" at ")[0], row, cells[cells.index(folder.name) + 1]}

    assert told() == {"killed or still running"}  # of a run of before there were locks
    with locked(folder):
        assert told() == {"running"}
    assert told() == {"killed"}


def test_a_plan_behind_a_link_is_refused(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    (runs / "study.json").symlink_to(tmp_path / "plan.json")
    with pytest.raises(ValueError, match=f"study.json is a link to {tmp_path / 'plan.json'};"):
        open_store(runs, TASKS)
