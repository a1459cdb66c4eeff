"""Writing that a crash cannot spoil and a link cannot lead astray: to a temporary file, then renamed."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

READABLE = 60  # characters of the target's name in the temporary one; with the rest below 255 bytes in any script


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give an empty temporary file beside `path`; rename it to `path` when the block ends well, else remove it.

    The file is new and has a name that nobody can foresee, so neither a link that waits in a foreign folder nor another
    process that writes the same target comes in between. It gets the permissions that the umask gives new files.

    Raises OSError that names the file, the reason and the free space when writing fails.
    """
    temporary = path.with_name(f".{path.name[:READABLE]}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o666))
        mode = temporary.stat().st_mode & 0o777
        yield temporary
        temporary.chmod(mode)  # safetensors makes files that only their owner can read
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch.save reports a full disk as RuntimeError
        _remove(temporary)
        raise OSError(
            f"{path}: could not be written ({error}); {free_space(path)}. What was there before is as it was."
        ) from error
    except BaseException:
        _remove(temporary)
        raise


def remove_leftovers(folder: Path) -> tuple[str, ...]:
    """Remove temporary files of `replacing` that a killed process left in `folder`, and return their names.

    Only for a folder whose lock is held: the file of a process at work looks the same.
    """
    left = sorted(path for path in folder.glob(".*.part") if path.is_file() and not path.is_symlink())
    for path in left:
        _remove(path)
    return tuple(path.name for path in left)


def free_space(path: Path) -> str:
    """Return in words how much room there is where `path` is, or would be, written."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    return f"{shutil.disk_usage(folder).free / 2**20:,.0f} MiB are free in {folder}"


def _remove(path: Path) -> None:
    with suppress(OSError):  # on a read-only or vanished folder there is nothing to remove
        path.unlink(missing_ok=True)
