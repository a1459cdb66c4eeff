"""The entry: refuses an old Python in words, then hands over to environment.py or doctor.py.

It keeps to the syntax of Python 3.6, which is still the `python3` of many clusters, so that such a Python
reads this far and can say what is wrong. Once .venv exists, an old `python3` does no harm: the command goes
on in .venv's own.
"""

import os
import shutil
import sys

NEEDED = (3, 10)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def refusal() -> str:
    """Return what to tell the user of an old Python, with a newer one of this machine where there is one."""
    newer = [name for name in (f"python3.{minor}" for minor in range(14, 9, -1)) if shutil.which(name)]
    if newer:
        way_out = f"Run: make setup PYTHON={newer[0]}"
    else:
        way_out = (
            "None is on PATH: install one (conda, uv and pyenv do that without sudo), then run: "
            "make setup PYTHON=/path/to/python3"
        )
    needed, found = (".".join(map(str, version)) for version in (NEEDED, sys.version_info[:3]))
    return f"Python {needed} or newer is needed; {sys.executable} is {found}. {way_out}"


def main() -> int:
    """Return the exit code of the command named on the command line."""
    if sys.version_info < NEEDED:
        inner = os.path.join(ROOT, ".venv", "bin", "python")
        if os.path.exists(inner) and "--this-python" not in sys.argv:
            os.execv(inner, [inner, "-m", "bootstrap", *sys.argv[1:]])
        sys.stderr.write(refusal() + "\n")
        return 1

    from bootstrap import doctor, environment

    commands = {"setup": environment.main, "doctor": doctor.main}
    arguments = sys.argv[1:]
    if not arguments or arguments[0] not in commands:
        sys.stderr.write("usage: python3 -m bootstrap {setup [--this-python] | doctor}\n")
        return 2
    return commands[arguments[0]](arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
