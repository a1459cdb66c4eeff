"""Where what was read of large data is kept between runs."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return $MAE_TRANSFER_CACHE, or $XDG_CACHE_HOME/mae-transfer, or ~/.cache/mae-transfer."""
    if explicit := os.environ.get("MAE_TRANSFER_CACHE"):
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mae-transfer"
