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
CAUSES = {
    r"No space left on device|Errno 28|Disk quota exceeded|Errno 122": "the disk (or your quota) is full. With the "
    "CUDA build of torch .venv takes 7 GB, and 4 GB of downloads are unpacked: free some, or point TMPDIR and "
    "PIP_CACHE_DIR to a larger disk, and run `make setup` again",
    r"DO NOT MATCH THE HASHES|hash mismatch": "a downloaded file is not the one that was reviewed or that the index "
    "promised, by a broken download, a proxy that rewrites it or an index with a build of its own: run "
    "`.venv/bin/python -m pip cache purge` and `make setup` again, or use another index (PIP_INDEX_URL)",
    r"CERTIFICATE_VERIFY_FAILED|SSLError": "the index's certificate is not trusted here, mostly because of a company "
    "proxy: set PIP_CERT to its certificate",
    r"NewConnectionError|Failed to establish a new connection|Temporary failure in name resolution|NameResolutionError"
    r"|ConnectTimeout|ReadTimeout|Read timed out|ProxyError|Network is unreachable": "the package index cannot be "
    "reached: check the network, set HTTPS_PROXY if you are behind a proxy, or point PIP_INDEX_URL to a mirror that "
    "you can reach, and run `make setup` again",
    r"ResolutionImpossible|conflicting dependencies": "a version that this project pins clashes with another demand, "
    "mostly a pip constraint of this machine: look at `python3 -m pip config list` and PIP_CONSTRAINT",
    r"No matching distribution found|Could not find a version": "your package index has no such version for this "
    "Python and this machine. Tested: Python 3.10 to 3.13 on Linux, x86_64. Try another with `make setup "
    "PYTHON=python3.11`, or another index with PIP_INDEX_URL",
    r"Permission denied|Errno 13|Read-only file system|Errno 30": "a folder cannot be written to: the project's "
    "folder, pip's cache (PIP_CACHE_DIR) or the temporary one (TMPDIR)",
}
# Of the downloads only those of 10 MB or more: the others are a matter of seconds, and there are a hundred of them.
SHOWN = re.compile(
    r"\s*(ERROR|error:|WARNING(?!: Location .* is ignored)|Installing collected packages"
    r"|Downloading \S+ \((\d{2,}\.\d MB|[\d.]+ GB)\))"
)


class SetupError(Exception):
    """Set-up cannot go on; the message says why and what to do."""


def explain(output: str) -> str:
    """Return the likely cause of a failure and the way out, read from pip's output or an error's text."""
    for pattern, advice in CAUSES.items():
        if re.search(pattern, output, re.IGNORECASE):
            return advice
    return "the cause is not a known one: try `rm -rf .venv && make setup`, or another Python (PYTHON=python3.11)"


def run_pip(python: Path, log: Path, *arguments: str) -> None:
    """Run `pip ARGUMENTS` of an environment; raise SetupError with the cause and the way out when it fails."""
    # PIP_USER: a user-wide `user = true` would make pip refuse to install into a virtual environment.
    # PIP_NO_INPUT: a private index must fail for want of a password, not wait for one for ever.
    settings = {"PIP_USER": "0", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    command = [str(python), "-m", "pip", *arguments]
    lines = [f"\n$ {' '.join(command)}\n"]
    with (
        log.open("a", encoding="utf-8") as file,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **settings},
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        file.write(lines[0])
        for line in process.stdout:
            file.write(line)
            lines.append(line)
            if SHOWN.match(line):
                print(f"      {line.strip()[:140]}", flush=True)
    if process.returncode != 0:
        raise SetupError(
            f"pip {arguments[0]} failed (exit code {process.returncode}): {explain(''.join(lines))}. Its whole output: "
            f"{log}"
        )
