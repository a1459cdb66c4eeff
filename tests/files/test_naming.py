"""Names of files: inside their folder, unlike one another, never an input's."""

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from files.naming import (
    LONGEST,
    cache_folder,
    distinct_stems,
    files_below,
    inside,
    nearest,
    refuse_overwriting,
    refuse_within,
)


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "", "a\0b", "C:\\x"])
def test_a_name_that_leads_out_of_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "away").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="which is not a path inside"):
        inside(folder, name, source=folder / "record.json")


@pytest.mark.parametrize("name", ["away", "away/x", "a/away/x", "chain"])
def test_a_link_out_of_the_folder_is_named_with_its_target(name: str, tmp_path: Path) -> None:
    folder, target = tmp_path / "run", tmp_path / "other"
    (folder / "a").mkdir(parents=True)
    (folder / "away").symlink_to(target)  # which is not there yet
    (folder / "a" / "away").symlink_to("../../other")
    (folder / "chain").symlink_to("away")
    link = folder / name.removesuffix("/x")
    with pytest.raises(ValueError, match=f"'{name}' leads out of {folder}: {link} is a link to {target};"):
        inside(folder, name, source=folder / "record.json")


def test_a_name_inside_is_taken_through_links_that_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert inside(tmp_path, "b/x.png", source=Path("r")) == tmp_path / "b/x.png"
    linked = tmp_path / "c"
    linked.symlink_to(tmp_path / "a")
    assert inside(linked, "x.png", source=Path("r")) == linked / "x.png"


def test_an_output_over_an_input_is_refused_by_any_path_to_it(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    refuse_overwriting([tmp_path / "b.png"], [tmp_path / "a.png"])
    with pytest.raises(ValueError, match="would be written over"):
        refuse_overwriting([tmp_path / "link" / "a.png"], [tmp_path / "a.png"])
    with pytest.raises(ValueError, match="would be written over"):
        refuse_overwriting([tmp_path / "link" / "new.png"], [tmp_path / "new.png"])


def test_a_folder_of_outputs_within_an_input_is_refused_by_any_path_to_it(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "images")
    refuse_within(tmp_path / "images-2", [tmp_path / "images", tmp_path / "none"])
    refuse_within(tmp_path, [tmp_path / "images"])
    for out in ("images", "images/new", "link/new/newer", "new/../images/new"):
        with pytest.raises(ValueError, match=r"would be written into .*images, which is read; give another --out"):
            refuse_within(tmp_path / out, [tmp_path / "images"])


def test_stems_are_kept_where_they_can_be() -> None:
    assert distinct_stems(["a", "b"], ["1/a.jpg", "1/b.jpg"]) == ["a", "b"]
    first, second = distinct_stems(["x", "x"], ["1/x.jpg", "2/x.jpg"])
    assert first == "x" and second.startswith("x-") and len(second) == 10
    # x.jpg has x_labels.png beside its picture, which x_labels.jpg would take for its own
    stems = distinct_stems(["x", "x_labels"], ["x.jpg", "x_labels.jpg"], endings=(".png", "_labels.png"))
    assert stems[0] == "x" and stems[1] != "x_labels"


names = st.text(st.characters(codec="utf-8"), max_size=400) | st.sampled_from(["A", "a", "a_labels", "e\u0301", "\xe9"])


@given(st.lists(names, max_size=12))
def test_n_things_have_n_names_that_any_file_system_takes(stems: list[str]) -> None:
    endings = (".png", "_labels.png")
    chosen = distinct_stems(stems, [f"{number}/{stem}" for number, stem in enumerate(stems)], endings=endings)
    files = [stem + ending for stem in chosen for ending in endings]
    assert len({unicodedata.normalize("NFC", name).casefold() for name in files}) == 2 * len(stems)
    assert all(len(os.fsencode(name)) <= LONGEST and os.path.basename(name) == name for name in files)


def test_things_of_one_identity_still_have_names_of_their_own() -> None:
    assert len(set(distinct_stems(["a"] * 4, ["a.jpg"] * 4))) == 4


@pytest.mark.parametrize(
    ("name", "found", "differs"),
    [
        ("A.jpg", "a.jpg", "case"),
        ("a.JPG", "a.jpg", "case"),
        ("a.jpeg", "a.jpg", "ending"),
        ("A.png", "a.jpg", "ending and case"),
        ("a", "a.jpg", "ending"),
        ("ape\\b.jpg", "ape/b.jpg", "slashes"),
        ("./ape/b.jpg", "ape/b.jpg", "folder"),
        ("train/ape/b.jpg", "ape/b.jpg", "folder"),
        ("train\\ape\\B.JPEG", "ape/b.jpg", "slashes and folder and ending and case"),
        ("b.jpg", "ape/b.jpg", "folder"),
        ("a.jpg ", "a.jpg", "spaces"),
        (
            unicodedata.normalize("NFD", "\u00e9t\u00e9.jpg"),
            "\u00e9t\u00e9.jpg",
            "Unicode form (composed or decomposed",
        ),
    ],
)
def test_the_file_that_was_meant(name: str, found: str, differs: str, tmp_path: Path) -> None:
    for path in ("a.jpg", "ape/b.jpg", "bee/c.jpg", "cow/c.jpg", "frame.0001", "\u00e9t\u00e9.jpg"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    said = nearest(["zebra.jpg", name], files_below(tmp_path))
    assert said.startswith(f"; for {name!r} there is {found!r}, which differs in its {differs}")
    assert said.endswith(" (1 of 2 such)")


@pytest.mark.parametrize("name", ["zebra.jpg", "c.jpg", "C.png", "frame.0002", "", ".", "/", "x\0"])
def test_nothing_is_said_where_no_file_or_two_may_be_meant(name: str) -> None:
    assert nearest([name], ["a.jpg", "bee/c.jpg", "cow/c.jpg", "frame.0001"]) == ""


@given(st.text(max_size=6), st.lists(st.text(max_size=6), max_size=4))
def test_any_name_is_looked_for(name: str, there: list[str]) -> None:
    said = nearest([name], [other for other in there if other != name])
    assert said == "" or "which differs in its " in said


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAE_TRANSFER_CACHE", "/explicit")
    assert cache_folder() == Path("/explicit")
    monkeypatch.delenv("MAE_TRANSFER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/mae-transfer")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "mae-transfer"
