"""Write the sync twin of every async source, or check that the committed twins are current.

``python tools/generate_sync.py [--check]``

The twin of ``connectors/samespace/**/NAME_async.py`` is ``NAME.py`` beside it. ``unasync`` removes
``async`` and ``await``; the tables below say what else differs. A source line that ends in
``# async only`` has no counterpart in the twin.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import unasync

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCES: Final = ROOT / "connectors" / "samespace"
MARK: Final = "# Generated from "
FIXES: Final = "I,F401,PYI016,RUF022,SIM117,UP028"
"""What ruff mends in a twin: import order, unused imports, doubled members of unions."""

# Whole names, wherever they stand. Any other AsyncName loses its prefix, any name_async its suffix,
# and unasync itself knows __aenter__, AsyncIterator, asynccontextmanager and their like.
NAMES: Final = {
    "AnyBackend": "EmbeddingBackend",
    "require_any": "require_sync",
    "AsyncGenerator": "Generator",
    "AsyncIterable": "Iterable",
    "AsyncIterator": "Iterator",
    "aclose": "close",
    "aclosing": "closing",
    "aiter": "iter",
    "aiter_bytes": "iter_bytes",
    "anext": "next",
    "asend": "send",
    "enter_async_context": "enter_context",
    "push_async_callback": "callback",
    "push_async_exit": "push",
}

# Phrases of several tokens, before anything else; imports that only one side needs are added by
# the source or removed as unused.
PHRASES: Final = {
    "import asyncio\n": "import threading\nimport time\n",
    "asyncio.Event": "threading.Event",
    "asyncio.Lock": "threading.Lock",
    "asyncio.Semaphore": "threading.Semaphore",
    "asyncio.BoundedSemaphore": "threading.BoundedSemaphore",
    "asyncio.sleep": "time.sleep",
    "inspect.isgeneratorfunction": "inspect.isasyncgenfunction",
    "is_async: ClassVar[bool] = True": "is_async: ClassVar[bool] = False",
}

_ASYNC_ONLY = re.compile(r"^.*# async only$\n", re.MULTILINE)
_PREFIX = re.compile(r"\bAsync(?=[A-Z])")
_SUFFIX = re.compile(r"(?<=\w)(?<!\bis)_async\b")
_NAMES = re.compile(rf"\b({'|'.join(NAMES)})\b")
_AWAITABLE = re.compile(r"\bAwaitable\[")
_AWAITED = re.compile(r"(?<![\w\])])\(await (?=\w)")
Wanted = Callable[[str, str], bool]
_PRIMARIES = (ast.Attribute, ast.Call, ast.Name, ast.Subscript)


def main() -> int:
    """Write or check every twin; 1 if ``--check`` found one that differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say what would change")
    check = parser.parse_args().check
    drifted = [line for source in sources() for line in update(source, check=check)]
    orphans = [f"{_shown(twin)}: its async source is gone; remove it\n" for twin in orphaned()]
    sys.stdout.writelines(drifted + orphans)
    return 1 if orphans or (check and drifted) else 0


def sources() -> list[Path]:
    """Every async source, in a stable order."""
    return sorted(SOURCES.rglob("*_async.py"))


def twin_of(source: Path) -> Path:
    """Where the twin of an async source is."""
    return source.with_name(source.name.replace("_async.py", ".py"))


def orphaned() -> Iterator[Path]:
    """Twins whose source no longer exists."""
    twins = {twin_of(source) for source in sources()}
    for path in sorted(SOURCES.rglob("*.py")):
        if path not in twins and path.read_text(encoding="utf-8").startswith(MARK):
            yield path


def update(source: Path, *, check: bool) -> list[str]:
    """Bring one twin up to date, unless ``check``; the lines of the diff."""
    twin = twin_of(source)
    before = twin.read_text(encoding="utf-8") if twin.exists() else ""
    after = generate(source)
    if before == after:
        return []
    if before and not before.startswith(MARK):
        raise SystemExit(f"{_shown(twin)} was written by hand; rename it or {source.name}")
    if not check:
        twin.write_text(after, encoding="utf-8")
        return [f"wrote {_shown(twin)}\n"]
    return list(
        difflib.unified_diff(
            before.splitlines(keepends=True),
            after.splitlines(keepends=True),
            fromfile=f"{_shown(twin)} (committed)",
            tofile=f"{_shown(twin)} (generated)",
        )
    )


def generate(source: Path) -> str:
    """The twin's text."""
    header = f"{MARK}{source.name} by tools/generate_sync.py; change that file, not this one.\n"
    text = to_sync(source.read_text(encoding="utf-8"))
    _check_sync(text, source)
    twin = twin_of(source)
    fixed = _ruff(text, twin, "check", "--select", FIXES, "--fix-only", "--unsafe-fixes", "--quiet")
    return _ruff(header + fixed, twin, "format", "--quiet")


def to_sync(text: str) -> str:
    """Sync text for async text, not yet formatted."""
    text = _ASYNC_ONLY.sub("", text)
    for phrase, replacement in PHRASES.items():
        text = text.replace(phrase, replacement)
    text = _without_wrapping(text, _AWAITABLE, lambda _inner, _after: True)
    text = _without_wrapping(text, _AWAITED, _needs_no_parentheses)
    text = _NAMES.sub(lambda match: NAMES[match[0]], text)
    text = _PREFIX.sub("", text)
    text = _SUFFIX.sub("", text)
    return _without_keywords(text)


def _without_wrapping(text: str, opening: re.Pattern[str], wanted: Wanted) -> str:
    """``opening … closing`` replaced by what it encloses, where ``wanted(inner, after)``."""
    position = 0
    while match := opening.search(text, position):
        end = _closing(text, match.end())
        inner, after = text[match.end() : end], text[end + 1 :]
        position = match.start() + 1
        if wanted(inner, after):
            text = text[: match.start()] + inner + after
    return text


def _closing(text: str, start: int) -> int:
    """Where the bracket that was opened before ``start`` is closed."""
    depth = 1
    for place in range(start, len(text)):
        depth += (text[place] in "([{") - (text[place] in ")]}")
        if depth == 0:
            return place
    raise SystemExit(f"no closing bracket after {text[start - 30 : start]!r}")


def _needs_no_parentheses(inner: str, _after: str) -> bool:
    """Whether what was awaited binds tightly enough to stand alone."""
    try:
        return isinstance(ast.parse(inner, mode="eval").body, _PRIMARIES)
    except SyntaxError:
        return False


def _without_keywords(text: str) -> str:
    """``async`` and ``await`` removed, by unasync."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in", "text.py"), Path(folder, "out", "text.py")
        source.parent.mkdir()
        source.write_text(text, encoding="utf-8")
        rule = unasync.Rule(str(source.parent), str(target.parent))
        unasync.unasync_files([str(source)], [rule])
        return target.read_text(encoding="utf-8")


def _check_sync(text: str, source: Path) -> None:
    """Stop if anything async is left."""
    left = [
        f"{_shown(source)}: {kind.__name__} is left"
        for kind in (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
        if any(isinstance(node, kind) for node in ast.walk(ast.parse(text)))
    ]
    left += [f"{_shown(source)}: asyncio is left"] if re.search(r"\basyncio\b", text) else []
    if left:
        raise SystemExit("\n".join(left))


def _ruff(text: str, path: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", str(path), "-"]
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, cwd=ROOT
    )
    if done.returncode:
        raise SystemExit(f"{_shown(path)}: ruff {arguments[0]}: {done.stderr}")
    return done.stdout


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    sys.exit(main())
