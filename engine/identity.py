"""Which run a folder belongs to: written at its start, compared when it is resumed."""

import hashlib
import json
from pathlib import Path
from typing import Any

from engine.config import NOT_IDENTITY, differences
from files.writing import replacing

NAME = "config.json"


def run_id(identity: dict[str, Any]) -> str:
    """Return 16 hexadecimal digits of what makes a run what it is, leaving out what may change on resumption."""
    text = json.dumps(_essential(identity), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_identity(out: Path, identity: dict[str, Any]) -> None:
    """Write `out/config.json`."""
    with replacing(out / NAME) as temporary:
        temporary.write_text(json.dumps(identity, indent=1, default=str) + "\n", encoding="utf-8")


def check_folder(out: Path, identity: dict[str, Any], *, resume: bool) -> None:
    """Raise ValueError where `out` is no folder, or holds another run than the one to be resumed."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; --out names a folder.")
    path = out / NAME
    if not path.exists():
        return
    if not resume:
        raise ValueError(f"{out}: holds a run already ({NAME}); give another --out, or add --resume to continue it.")
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path}: not readable ({error}); the folder cannot be resumed, give another --out."
        ) from error
    new = json.loads(json.dumps(identity, default=str))
    if found := differences(old, new):
        raise ValueError(
            f"{out}: holds a run with another configuration, so it cannot be resumed with this one: "
            f"{'; '.join(found)}. Repeat its flags, or give another --out."
        )


def _essential(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _essential(item) for name, item in value.items() if name not in NOT_IDENTITY}
    return value
