"""Files of weights from plain addresses, kept in a folder of HF_HOME: fetched once, by one process at a time.

A file is kept below the digest of its address, with the address beside it. It has its name when it is whole; until
then it is a part, which the next download continues.
"""

import hashlib
import os
import socket
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from files.locking import locked

FOLDER, SOURCE = "addresses", "address.txt"


def kept_at(url: str) -> Path:
    """Return where the file of an address is kept, whether or not it is there."""
    from huggingface_hub import constants

    digest = hashlib.sha256(url.encode()).hexdigest()[:16]
    return Path(constants.HF_HOME) / FOLDER / digest / Path(urlsplit(url).path).name


def address_of(path: Path) -> str | None:
    """Return the address that a kept file came from, None of any other file."""
    source = path.with_name(SOURCE)
    if path.parent.parent.name != FOLDER or not source.is_file():
        return None
    return source.read_text(encoding="utf-8").strip()


def way_out(path: Path) -> str:
    """Return what to do about a kept file that is damaged, as the end of a message; empty of any other file."""
    address = address_of(path)
    return "" if address is None else f" It is kept from {address}: remove {path}, and the next run fetches it again."


def fetched(url: str) -> Path:
    """Return the file of an address, downloaded where it is not kept; a download that was cut off is continued.

    Of several processes one downloads, and the others wait for it. Where the disk has no locks each downloads a part of
    its own, and the last that ends is kept.

    Raises ConnectionError where nothing may be asked, ValueError where fewer or more bytes arrive than the server
    states, OSError where nothing can be written, and what huggingface_hub raises.
    """
    from huggingface_hub import constants

    path = kept_at(url)
    if path.is_file():  # it has this name when it is whole
        return path
    if constants.HF_HUB_OFFLINE:
        raise ConnectionError("HF_HUB_OFFLINE is set")
    with locked(path.parent, wait=True) as no_locks:
        if path.is_file():  # another process has fetched it meanwhile
            return path
        own = "" if no_locks is None else f".{socket.gethostname()}-{os.getpid()}"
        part = path.with_name(f"{path.name}{own}.part")
        _download(url, part, name=path.name)
        path.with_name(SOURCE).write_text(f"{url}\n", encoding="utf-8")
        os.replace(part, path)
    return path


def _download(url: str, part: Path, *, name: str) -> None:
    """Write the rest of a file to its part."""
    from huggingface_hub import errors
    from huggingface_hub.file_download import http_get

    try:
        with part.open("ab") as file:
            http_get(url, file, resume_size=file.tell(), displayed_filename=name)
    except errors.HfHubHTTPError as error:
        size = part.stat().st_size
        if error.response.status_code != 416 or not size:  # else nothing follows the part
            raise
        if error.response.headers.get("Content-Range") != f"bytes */{size}":  # it is not whole, so of another file
            part.unlink()
            _download(url, part, name=name)
    except OSError as error:
        if "Consistency check failed" not in str(error):
            raise
        with suppress(OSError):
            part.unlink()
        raise ValueError(
            f"{url}: another number of bytes arrived than the server states; they were removed. Try again."
        ) from error
