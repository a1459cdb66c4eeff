"""Files that are replaced: whole or not at all, never through a link."""

import os
import stat
from pathlib import Path

import pytest

from files.writing import link_or_copy, new_folder, remove_leftovers, replacing


def test_a_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "record.json"
    with replacing(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError("disk full"), OSError("disk full"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_what_was_there(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_text("before")
    kind = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else OSError
    with pytest.raises(kind), replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_link_that_waits_at_the_old_temporary_name_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".record.json.part").symlink_to(victim)
    (folder / "record.json").symlink_to(victim)
    with replacing(folder / "record.json") as temporary:
        temporary.write_text("theirs")
    assert victim.read_text() == "mine"
    assert (folder / "record.json").read_text() == "theirs" and not (folder / "record.json").is_symlink()


def test_two_writers_of_one_target_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as one, replacing(tmp_path / "a") as two:
        one.write_text("one")
        two.write_text("two")
    assert (tmp_path / "a").read_text() == "one" and len(list(tmp_path.iterdir())) == 1


def test_the_file_has_the_permissions_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "a") as temporary:
            temporary.unlink()
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))  # as safetensors does
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["x" * 255, "像" * 85])  # 255 bytes each
def test_the_longest_names_can_be_written(name: str, tmp_path: Path) -> None:
    with replacing(tmp_path / name) as temporary:
        temporary.write_text("")
    assert (tmp_path / name).exists()


def test_leftovers_of_a_killed_process_are_removed_and_named(tmp_path: Path) -> None:
    (tmp_path / ".record.json.01234567.part").write_text("half")
    (tmp_path / ".link.part").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "mine.part").write_text("whole")
    assert remove_leftovers(tmp_path) == (".record.json.01234567.part",)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".link.part", "mine.part"]


def test_a_folder_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with new_folder(tmp_path / "a" / "out") as temporary:
            (temporary / "x").write_text("1")
            assert not (tmp_path / "a/out").exists()
    finally:
        os.umask(before)
    assert (tmp_path / "a/out/x").read_text() == "1"
    assert stat.S_IMODE((tmp_path / "a/out").stat().st_mode) == 0o750
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "a" / "two") as temporary:
        (temporary / "x").write_text(str(1 / 0))
    with (
        pytest.raises(FileExistsError, match="out: is there already; give a new --out"),
        new_folder(tmp_path / "a/out"),
    ):
        pass
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty") as temporary:
        link_or_copy(tmp_path / "a/out/x", temporary / "deep/link")
        link_or_copy(tmp_path / "a/out/x", temporary / "copy", copy=True)
    assert (tmp_path / "empty/deep/link").readlink() == (tmp_path / "a/out/x").resolve()
    assert not (tmp_path / "empty/copy").is_symlink() and (tmp_path / "empty/copy").read_text() == "1"
