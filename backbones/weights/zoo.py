"""The catalogue of public ViT checkpoints (public/*.yaml), read where it is first asked for.

A file of the folder has a kind of files: a list of blocks, whose `files` have what they share and each its own, which
goes first. The fields are those of PublicCheckpoint. Every fact is from the publisher's repository, the author's answer
in its issues, the model's card on the Hugging Face hub or timm's table of weights (1.0.31); null stands for what none
of them says. `labels` counts every stage of training. ImageNet-21K is also what some papers call 22K.

Nothing here is used to guess on loading: the source of a file is declared by the user, or by a name that is typed.
"""

from functools import cache
from pathlib import Path
from typing import Any

from backbones.weights.zoo_entry import PublicCheckpoint
from files.parsing import parse_yaml
from files.typed import from_json

FOLDER = Path(__file__).with_name("public")


@cache
def public_checkpoints(folder: Path = FOLDER) -> tuple[PublicCheckpoint, ...]:
    """Return all entries, the files in the order of their names.

    Raises ValueError with every fault of every file and the names of the entries: a block without files, a field that
    is unknown, missing or of another kind, a name that comes twice.
    """
    entries: list[PublicCheckpoint] = []
    faults: list[str] = []
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise ValueError(f"{folder}: there is no catalogue (*.yaml); install the project again.")
    for path in paths:
        _read(path, entries, faults)
    for field in ("name", "url"):
        values = [getattr(entry, field) for entry in entries]
        twice = sorted({value for value in values if values.count(value) > 1})
        faults += [f"{field} {value} comes twice; keep one of them" for value in twice]
    if faults:
        raise ValueError(f"{folder}: {'; '.join(faults)}.")
    return tuple(entries)


def _read(path: Path, entries: list[PublicCheckpoint], faults: list[str]) -> None:
    """Add what a file has to `entries`, and what is wrong with it to `faults`."""
    try:
        blocks = parse_yaml(path.read_bytes(), path.name)
    except ValueError as error:
        faults.append(str(error))
        return
    if not isinstance(blocks, list):
        faults.append(f"{path.name}: it should be a list of blocks, each with `files`")
        return
    for number, block in enumerate(blocks, start=1):
        rows = block.get("files") if isinstance(block, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            faults.append(f"{path.name}: block {number}: it should have `files`, a list of objects with a name each")
            continue
        shared: dict[str, Any] = {name: value for name, value in block.items() if name != "files"}
        for place, row in enumerate(rows, start=1):
            try:
                entries.append(from_json(PublicCheckpoint, {**shared, **row}))
            except ValueError as error:
                faults.append(f"{path.name}: {row.get('name', f'block {number}, file {place}')}: {error}")


def find_public(file_name: str, md5: str | None = None) -> PublicCheckpoint | None:
    """Return the entry of that name, or of that MD5 where the file was renamed.

    None where there is none, and where the name's published MD5 is another one: the file is not what its name says.
    """
    for entry in public_checkpoints():
        if entry.name == file_name and (md5 is None or entry.md5 is None):
            return entry
        if md5 is not None and entry.md5 is not None and md5.startswith(entry.md5):
            return entry
    return None
