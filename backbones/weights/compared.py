"""Files of the hub's cache that were compared with their published SHA-256, so that no run has to hash them again.

The hub's cache keeps a large file under its SHA-256 (`models--OWNER--MODEL/blobs/SHA256`), whoever put it there. A mark
of ours states that the content was compared, and of which device, inode, size and time it was: a file that changed
since is hashed again, and one that somebody else downloaded is compared once.
"""

import json
import os
import re
from contextlib import suppress
from pathlib import Path

from backbones.weights.digest import Version, version_of
from files.parsing import read_json
from files.writing import replacing

SHA256 = re.compile(r"[0-9a-f]{64}")
MARKS = "mae-transfer-compared"  # a folder of HF_HOME


def published_digest(path: Path) -> str | None:
    """Return the SHA-256 that a file of the hub's cache lies under, None for any other file."""
    real = Path(os.path.realpath(path))
    in_cache = real.parent.name == "blobs" and real.parent.parent.name.startswith("models--")
    return real.name if in_cache and SHA256.fullmatch(real.name) else None


def compared_digest(path: Path, version: Version | None = None) -> str | None:
    """Return the SHA-256 of a file that was compared and has not changed since; None of any other.

    `version` is that of the opened file, where it is open.
    """
    sha256 = published_digest(path)
    if sha256 is None:
        return None
    with suppress(OSError, ValueError):  # no mark, or none that can be read: the file is hashed
        marked = read_json(_mark(sha256))
        if marked == list(version_of(path.stat()) if version is None else version):
            return sha256
    return None


def mark_compared(path: Path) -> None:
    """Keep that a file of the hub's cache is what is published. Where nothing can be kept it is hashed again."""
    sha256 = published_digest(path)
    if sha256 is None:
        return
    with suppress(OSError):
        mark = _mark(sha256)
        mark.parent.mkdir(parents=True, exist_ok=True)
        with replacing(mark) as temporary:
            temporary.write_text(json.dumps(version_of(path.stat())) + "\n", encoding="utf-8")


def _mark(sha256: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / MARKS / f"{sha256}.json"
