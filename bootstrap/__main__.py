"""The entry: refuses an old Python in words, then hands over to environment.py or doctor.py.

It keeps to the syntax of Python 3.6, which is still the `python3` of many clusters, so that such a Python
reads this far and can say what is wrong. Once .venv exists, an old `python3` does no harm: the command goes
on in .venv's own.
"""

import argparse
import os
import shutil
import sys

NEEDED = (3, 10)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def refusal() -> str:
    """Return what to tell the user of an old Python, with a newer one of this machine where there is one."""
    newer = [name for name in (f"python3.{minor}" for minor in range(14, 9, -1)) if shutil.which(name)]
    needs = "Run:" if newer else "None is on PATH: install one (conda, uv and pyenv do that without sudo), then run:"
    return (
        f"Python 3.10 or newer is needed; {sys.executable} is {'.'.join(map(str, sys.version_info[:3]))}. {needs} "
        f"make setup PYTHON={(newer or ['/path/to/python3'])[0]}"
    )


def main() -> int:
    """Return the exit code of the command named on the command line."""
    parser = argparse.ArgumentParser(prog="python3 -m bootstrap", description="What make setup and make doctor run.")
    parser.add_argument("command", choices=("setup", "doctor"))
    parser.add_argument("--this-python", action="store_true", help="set-up: rebuild .venv when it has another Python")
    args = parser.parse_args()
    if sys.version_info < NEEDED:
        inner = os.path.join(ROOT, ".venv", "bin", "python")
        if os.path.exists(inner) and not args.this_python:
            os.execv(inner, [inner, "-m", "bootstrap", args.command])
        sys.exit(refusal())

    from bootstrap import doctor, environment

    return doctor.main() if args.command == "doctor" else environment.main(args.this_python)


if __name__ == "__main__":
    sys.exit(main())
