"""Writing that a crash cannot spoil: to a temporary file beside the target, then renamed over it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path; rename it to `path` when the block ends well, remove it when it does not.

    Raises OSError that names the file, the reason and the free space when writing fails.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        _remove(temporary)
        raise OSError(
            f"{path}: could not be written ({error}); {_free(path)}. What was there before is as it was."
        ) from error
    except BaseException:
        _remove(temporary)
        raise


def _remove(path: Path) -> None:
    with suppress(OSError):  # on a read-only or vanished folder there is nothing to remove
        path.unlink(missing_ok=True)


def _free(path: Path) -> str:
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    return f"{shutil.disk_usage(folder).free / 2**20:,.0f} MiB are free in {folder}"
