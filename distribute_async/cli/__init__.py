"""The command `distribute-async`. Public: `main`, its entry point. All of it is built on the library's public face.

click and rich come with the extra `cli`; importing this module needs neither.
"""

import sys
from typing import NoReturn

from distribute_async.cli import _streams

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command that `sys.argv` names and exit with its code (see `docs/command-line.md`)."""
    _streams.prepare()
    try:
        from distribute_async.cli._commands import run  # noqa: PLC0415 - without the extra this fails, and says so

        code = run()
    except ModuleNotFoundError as missing:
        library = (missing.name or "").partition(".")[0]
        if library not in {"click", "rich"}:
            raise
        print(
            f"The command line needs {library}, which is not installed: pip install 'distribute-async[cli]'",
            file=sys.stderr,
        )
        code = 5
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
