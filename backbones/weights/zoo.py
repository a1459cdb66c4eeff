"""The catalogue of public ViT checkpoints (public.yaml), read where it is first asked for.

Nothing here is used to guess on loading: the source of a file is declared by the user, or by a name that is typed.
"""

from functools import cache
from pathlib import Path
from typing import Any

from backbones.weights.zoo_entry import PublicCheckpoint
from files.parsing import parse_yaml
from files.typed import from_json

PATH = Path(__file__).with_name("public.yaml")


@cache
def public_checkpoints(path: Path = PATH) -> tuple[PublicCheckpoint, ...]:
    """Return all entries.

    Raises ValueError with every fault of the file and the names of the entries: a block without files, a field that is
    unknown, missing or of another kind, a name that comes twice.
    """
    blocks = parse_yaml(path.read_bytes(), path.name)
    if not isinstance(blocks, list):
        raise ValueError(f"{path.name}: it should be a list of blocks, each with `files`.")
    entries, faults = [], []
    for number, block in enumerate(blocks, start=1):
        rows = block.get("files") if isinstance(block, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            faults.append(f"block {number}: it should have `files`, a list of objects with a name each")
            continue
        shared: dict[str, Any] = {name: value for name, value in block.items() if name != "files"}
        for place, row in enumerate(rows, start=1):
            try:
                entries.append(from_json(PublicCheckpoint, {**shared, **row}))
            except ValueError as error:
                faults.append(f"{row.get('name', f'block {number}, file {place}')}: {error}")
    for field in ("name", "url"):
        values = [getattr(entry, field) for entry in entries]
        twice = sorted({value for value in values if values.count(value) > 1})
        faults += [f"{field} {value} comes twice; keep one of them" for value in twice]
    if faults:
        raise ValueError(f"{path.name}: {'; '.join(faults)}.")
    return tuple(entries)


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
