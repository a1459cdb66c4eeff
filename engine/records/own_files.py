"""Files of a run that are read again by their names: they lie in its folder and are those that its record speaks of."""

from collections.abc import Collection, Sequence
from pathlib import Path

from engine.records.metrics_file import CSV_NAME, Mark
from engine.records.record import RECORD_NAME, RunRecord
from files.digest import file_sha256
from files.naming import inside


def own_file(folder: Path, record: RunRecord, name: str) -> Path | None:
    """Return the file `name` of the run in `folder`, None where there is none.

    Raises ValueError where a link leads out of the folder, and where the record knows the digest of another file;
    OSError where it cannot be read.
    """
    path = inside(folder, name, source=folder / RECORD_NAME)
    if not path.is_file():
        return None
    wanted = record.files_sha256.get(name)
    if wanted is not None and file_sha256(path) != wanted:
        raise ValueError(
            f"{path}: is not the file that its record speaks of (sha256 {wanted[:12]}...); it is damaged, or was "
            "replaced. Restore it from a copy."
        )
    return path


def damaged_files(folder: Path, record: RunRecord, *, without: Collection[str] = ()) -> dict[str, str]:
    """Return, by name, what is wrong with the tables, pictures and outputs of a run, but for those of `without`."""
    found = {}
    for name in dict.fromkeys((*_tables(folder), *record.files_sha256, *record.outputs, *record.pictures)):
        if name in without:
            continue
        try:
            own_file(folder, record, name)
        except (ValueError, OSError) as error:
            found[name] = str(error)
    return found


def digests(out: Path, outputs: Sequence[str], metrics: Mark) -> dict[str, str]:
    """Return what a record keeps of the files of a completed run: its tables and its outputs.

    The digest of metrics.csv is that of the bytes that were written, whatever the disk has made of them since.
    """
    return table_digests(out) | {name: file_sha256(out / name) for name in outputs} | {CSV_NAME: metrics.sha256}


def table_digests(folder: Path) -> dict[str, str]:
    """Return the digests of the tables in a run's folder."""
    return {name: file_sha256(folder / name) for name in _tables(folder)}


def _tables(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.csv"))
