"""Files of two lists: by place and by content."""

from pathlib import Path

from files.shared import same_content, shared_paths


def test_by_place_through_linked_folders(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert shared_paths([f"{tmp_path}/a/1", f"{tmp_path}/a/2"], [f"{tmp_path}/b/2", f"{tmp_path}/c/1"]) == [
        f"{tmp_path}/b/2"
    ]


def test_by_content(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("a", "b", "c", "d", "e", "f")}
    for name, content in {"a": b"xy", "b": b"xyz", "c": b"", "d": b"zz", "e": b"xyz"}.items():
        files[name].write_bytes(content)
    assert same_content([files["a"], files["b"], files["c"]], [files[name] for name in "defc"]) == [
        (files["b"], files["e"])
    ]
