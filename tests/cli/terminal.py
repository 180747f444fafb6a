"""A terminal for a command: what it shows on it, and keys to press."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

CTRL_C: Final = b"\x03"
_PART: Final = re.compile(
    r"\x1b\[(?P<numbers>[?0-9;]*)(?P<verb>[A-Za-z])|(?P<sign>[^\x1b])", re.DOTALL
)
_CONTROLLING: Final = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"


class Screen:
    """Lines as a terminal of so many columns has them; what it does not know is an error."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.lines = [""]
        self.is_wrapped = False
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        """Show what a program wrote."""
        for part in _PART.finditer(text):
            if part["sign"]:
                self._write(part["sign"])
            else:
                self._do(part["verb"], part["numbers"])

    def _write(self, sign: str) -> None:
        if sign == "\r":
            self._column = 0
        elif sign == "\n":
            self._go_down()
        else:
            assert sign.isprintable(), repr(sign)
            if self._column == self.columns:
                self.is_wrapped = True
                self._go_down()
                self._column = 0
            self._put(sign)

    def _put(self, sign: str) -> None:
        line = self.lines[self._row].ljust(self._column)
        self.lines[self._row] = line[: self._column] + sign + line[self._column + 1 :]
        self._column += 1

    def _go_down(self) -> None:
        self._row += 1
        if self._row == len(self.lines):
            self.lines.append("")

    def _do(self, verb: str, numbers: str) -> None:
        if verb == "A":
            self._row -= int(numbers or 1)
            assert self._row >= 0
        elif verb == "K":
            assert numbers == "2"
            self.lines[self._row] = ""
        else:
            assert verb == "m" or numbers == "?25", (verb, numbers)  # a colour, the cursor

    @property
    def text(self) -> str:
        """All that is there, without blank lines at the end."""
        return "\n".join(line.rstrip() for line in self.lines).rstrip("\n")


class Terminal:
    """Python code that runs in a terminal, with these arguments."""

    def __init__(
        self,
        code: str,
        arguments: Sequence[str],
        *,
        columns: int,
        cwd: Path,
        environment: Mapping[str, str],
    ) -> None:
        self.screen = Screen(columns)
        self._end, own = pty.openpty()
        fcntl.ioctl(own, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CONTROLLING + code, *arguments],
            stdin=own,
            stdout=own,
            stderr=own,
            start_new_session=True,
            cwd=cwd,
            env={**environment, "TERM": "xterm-256color"},
        )
        os.close(own)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._end)

    def press(self, keys: bytes) -> None:
        """Type something."""
        os.write(self._end, keys)

    def send(self, signal: int) -> None:
        """Send the process a signal."""
        self._process.send_signal(signal)

    def until(self, is_there: Callable[[str], object]) -> str:
        """Read on until the screen shows it; what it shows then."""
        while not is_there(self.screen.text):
            assert self._read(), f"it ended and showed:\n{self.screen.text}"
        return self.screen.text

    def end(self) -> int:
        """Read to the end; the exit code."""
        while self._read():
            pass
        return self._process.wait()

    def _read(self) -> bool:
        try:
            found = os.read(self._end, 2**16)
        except OSError:  # nobody has the other end any more
            return False
        self.screen.feed(found.decode())
        return bool(found)
