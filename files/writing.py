"""Writing that a crash cannot spoil and a link cannot lead astray: to a temporary file or folder, then renamed."""

import os
import secrets
import shutil
import tempfile
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


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give an empty temporary folder beside `path`; rename it to `path` when the block ends well, else remove it.

    It has a name that nobody can foresee and the permissions that the umask gives new folders.

    Raises FileExistsError where `path` is there, unless it is an empty folder.
    """
    if os.path.lexists(path) and (path.is_symlink() or not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path}: is there already; give a new --out, or remove it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name[:READABLE]}.", suffix=".part", dir=path.parent))
    try:
        temporary.chmod(0o777 & ~_umask())
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def link_or_copy(source: Path, target: Path, *, copy: bool = False) -> None:
    """Make `target` a link to the file or folder that `source` leads to, or a copy of the file.

    Folders on the way are made. Raises OSError, with the way out where the disk has no links.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if copy:
        shutil.copyfile(source, target)
        return
    try:
        target.symlink_to(source.resolve())
    except PermissionError as error:
        raise OSError(f"{target}: cannot be a link ({error.strerror}); this disk may have none.") from error


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


def _umask() -> int:
    """Return the mask of new files' permissions, which can be read by setting it alone."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _remove(path: Path) -> None:
    with suppress(OSError):  # on a read-only or vanished folder there is nothing to remove
        path.unlink(missing_ok=True)
