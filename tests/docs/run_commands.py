"""Run tools one after the other, each in a process of its own, forked from this one that has the slow imports at once.

    python tests/docs/run_commands.py [MODULE ...] < commands.json

The modules are imported first. Of a list [[tool or "", argument, ...], ...] each is run as `python TOOL ARGUMENT ...`
or, without a tool, as `python -c ARGUMENT`, in the working directory. Prints a line of JSON for each: exit code,
seconds, and what it printed. A program of its own: pytest's process has used torch's threads, which no fork survives.
"""

import json
import os
import runpy
import sys
import tempfile
import time
import traceback
from importlib import import_module


def run(tool: str, arguments: list[str]) -> int:
    """Return the exit code of a tool, or of Python code, in this process."""
    try:
        if tool:
            sys.argv = [tool, *arguments]
            runpy.run_path(tool, run_name="__main__")
        else:
            exec(compile(arguments[0], "block", "exec"), {"__name__": "__main__"})
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    """Run the commands of standard input."""
    for module in sys.argv[1:]:
        import_module(module)
    for tool, *arguments in json.load(sys.stdin):
        with tempfile.TemporaryFile() as said:
            start = time.monotonic()
            if (child := os.fork()) == 0:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                code = run(tool, arguments)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            said.seek(0)
            text = said.read().decode(errors="replace")
        print(json.dumps({"code": code, "seconds": time.monotonic() - start, "text": text}), flush=True)


if __name__ == "__main__":
    main()
