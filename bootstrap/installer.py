"""pip inside .venv: its output goes to a log, what matters to the screen, a failure becomes a sentence.

pip's own configuration (index, mirrors, proxy, certificates, cache) is the user's and stays in force.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

# First match wins, so a cause comes before its consequences: without a network pip ends with "No matching
# distribution".
CAUSES: tuple[tuple[str, str], ...] = (
    (
        r"No space left on device|Errno 28|Disk quota exceeded|Errno 122",
        "the disk (or your quota) is full. The CUDA build of torch needs about 7 GB here and 4 GB in the "
        "temporary folder while it unpacks: free some, or point TMPDIR and PIP_CACHE_DIR to a larger disk, "
        "and run `make setup` again",
    ),
    (
        r"DO NOT MATCH THE HASHES|hash mismatch",
        "a downloaded file is not the one the index promised, mostly a broken download or a proxy that "
        "rewrites it: run `.venv/bin/python -m pip cache purge`, then `make setup` again",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError",
        "the index's certificate is not trusted here, mostly because of a company proxy: set PIP_CERT to "
        "its certificate",
    ),
    (
        r"NewConnectionError|Failed to establish a new connection|Temporary failure in name resolution"
        r"|NameResolutionError|ConnectTimeout|ReadTimeout|Read timed out|ProxyError|Network is unreachable",
        "the package index cannot be reached: check the network, set HTTPS_PROXY if you are behind a "
        "proxy, or point PIP_INDEX_URL to a mirror that you can reach, and run `make setup` again",
    ),
    (
        r"ResolutionImpossible|conflicting dependencies",
        "a version that this project pins clashes with another demand, mostly a pip constraint of this "
        "machine: look at `python3 -m pip config list` and PIP_CONSTRAINT",
    ),
    (
        r"No matching distribution found|Could not find a version",
        "your package index has no such version for this Python and this machine. Tested: Python 3.10 to "
        "3.13 on Linux, x86_64. Try another with `make setup PYTHON=python3.11`, or another index with "
        "PIP_INDEX_URL",
    ),
    (
        r"Permission denied|Errno 13|Read-only file system|Errno 30",
        "a folder cannot be written to: the project's folder, pip's cache (PIP_CACHE_DIR) or the temporary "
        "one (TMPDIR)",
    ),
)
IGNORED = re.compile(r"^WARNING: Location .* is ignored")
TROUBLE = re.compile(r"^\s*(ERROR|error:|WARNING)")
# Smaller downloads are a matter of seconds, and there are a hundred of them.
LARGE_DOWNLOAD = re.compile(r"^\s*Downloading ([^-\s]+-[^-\s]+)\S* \((\d{2,}\.\d MB|[\d.]+ GB)\)")


class SetupError(Exception):
    """Set-up cannot go on; the message says why and what to do."""


def explain(output: str) -> str:
    """Return the likely cause of a failure and the way out, read from pip's output or an error's text."""
    for pattern, advice in CAUSES:
        if re.search(pattern, output, re.IGNORECASE):
            return advice
    return "the cause is not a known one"


class Installer:
    """pip of one virtual environment, with one log file."""

    def __init__(self, python: Path, log: Path) -> None:
        self.python = python
        self.log = log

    def __call__(self, *arguments: str) -> None:
        """Run `pip ARGUMENTS`; raise SetupError with the cause and the way out when it fails."""
        # PIP_USER: a user-wide `user = true` would make pip refuse to install into a virtual environment.
        # PIP_NO_INPUT: a private index must fail for want of a password, not wait for one for ever.
        settings = {"PIP_USER": "0", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        command = [str(self.python), "-m", "pip", *arguments]
        lines: list[str] = []
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"\n$ {' '.join(command)}\n")
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **settings},
                text=True,
                errors="replace",
            )
            assert process.stdout is not None
            for line in process.stdout:
                log.write(line)
                lines.append(line)
                self._show(line.rstrip())
            code = process.wait()
        if code != 0:
            raise SetupError(
                f"pip {arguments[0]} failed (exit code {code}): {explain(''.join(lines))}.\nIts whole "
                f"output: {self.log}"
            )

    def _show(self, line: str) -> None:
        if IGNORED.match(line):
            return
        download = LARGE_DOWNLOAD.match(line)
        if download is not None:
            print(f"      Downloading {download[1]} ({download[2]})", flush=True)
        elif TROUBLE.match(line):
            print(f"      {line.strip()[:140]}", flush=True)
        elif line.startswith("Installing collected packages:"):
            count = line.count(",") + 1
            print(f"      Installing {count} package{'s' if count > 1 else ''}", flush=True)
