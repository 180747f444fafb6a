"""The command ``samespace``, and ``python -m samespace``.

What it needs is imported within :func:`main`: that takes a second or two, in which Ctrl-C is as good
as any other.
"""

from __future__ import annotations

import sys
from typing import Final

_INTERRUPTED: Final = 130
_GO_ON: Final = "interrupted; what was stored stays, run it again to go on"  # as later, from cli


def main() -> None:
    """Run the command; its exit codes are those of :func:`samespace.cli.main`."""
    try:
        from samespace import cli  # noqa: PLC0415  takes its time
    except KeyboardInterrupt:
        sys.stderr.write(f"samespace: {_GO_ON}\n")
        sys.exit(_INTERRUPTED)
    cli.main()


if __name__ == "__main__":
    main()
