"""The tool that writes the sync twins: what it changes, and that it notices drift."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tools import generate_sync
from tools.generate_sync import ROOT, sources, to_sync, twin_of

SOURCE = '''\
"""A counter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import ClassVar, Self


class AsyncCounter:
    """Counts, and never twice at once."""

    is_async: ClassVar[bool] = True

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop counting."""
        self._limit = 0

    async def count(self) -> AsyncIterator[int]:
        """From 0 up to the limit."""
        async with self._lock:
            for number in range(self._limit):
                await asyncio.sleep(0)
                yield number


async def total_async(counter: AsyncCounter) -> int:
    """The sum of what is counted."""
    return sum([number async for number in counter.count()])
'''


@pytest.mark.parametrize(
    ("source", "twin"),
    [
        ("async def f(): ...", "def f(): ..."),
        ("x = await f()", "x = f()"),
        ("return await self.f()", "return self.f()"),
        ("async with a as b: ...", "with a as b: ..."),
        ("async for x in f(): ...", "for x in f(): ..."),
        ("[x async for x in f()]", "[x for x in f()]"),
        ("async def __aenter__(self): ...", "def __enter__(self): ..."),
        ("class AsyncStore: ...", "class Store: ..."),
        ("class AsyncStoreBase(ABC): ...", "class StoreBase(ABC): ..."),
        ("x = AsyncIterator[int]", "x = Iterator[int]"),
        ("x = AsyncIterable[int]", "x = Iterable[int]"),
        ("x = Callable[[str], Awaitable[int]]", "x = Callable[[str], int]"),
        ("x = dict[str, Awaitable[list[int]]]", "x = dict[str, list[int]]"),
        ("await x.aclose()", "x.close()"),
        ("await anext(x)", "next(x)"),
        ("embed_async(x)", "embed(x)"),
        ("from a.store_async import AsyncStore", "from a.store import Store"),
        ("(await f()).x", "f().x"),
        ("(await f())[0]", "f()[0]"),
        ("(await self._pool.get(1)).close()", "self._pool.get(1).close()"),
        ("f(await g(), await h())", "f(g(), h())"),
        ("await asyncio.sleep(1)", "time.sleep(1)"),
        ("x = asyncio.Lock()", "x = threading.Lock()"),
        ("import asyncio\n", "import threading\nimport time\n"),
        ("is_async: ClassVar[bool] = True", "is_async: ClassVar[bool] = False"),
        ("x = backend.is_async", "x = backend.is_async"),
    ],
)
def test_what_changes(source: str, twin: str) -> None:
    assert to_sync(source) == twin


@pytest.mark.parametrize(
    "text",
    [
        "x = f(a, b)\n",
        "def f(self) -> int: ...\n",
        '"""Asynchronous work, an asynchronously told story."""\n',
        "asynchronous = 1\n",
        "x = 'say async and await'\n",
        "is_async = False\n",
        "x = (a or b).c\n",
    ],
)
def test_what_stays(text: str) -> None:
    assert to_sync(text) == text


def test_a_line_for_the_async_side_alone_is_dropped() -> None:
    source = "a = 1\nb = 2  # async only\nif b:  # async only\nc = 3\n"
    assert to_sync(source) == "a = 1\nc = 3\n"


def test_the_twin_of_a_twin_is_itself() -> None:
    once = to_sync(SOURCE)
    assert to_sync(once) == once


def test_nothing_async_is_left() -> None:
    twin = to_sync(SOURCE)
    kinds = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)
    assert not [node for node in ast.walk(ast.parse(twin)) if isinstance(node, kinds)]
    assert "asyncio" not in twin
    assert "class Counter:" in twin
    assert "def total(counter: Counter) -> int:" in twin


def test_every_source_has_a_twin_that_names_it() -> None:
    assert sources()
    for source in sources():
        first = twin_of(source).read_text(encoding="utf-8").splitlines()[0]
        assert first.startswith(f"# Generated from {source.name} by tools/generate_sync.py")


# The command, on a project of its own


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the tool and its settings, with one source."""
    for folder in ("tools", "connectors/samespace"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(ROOT / "tools" / "generate_sync.py", tmp_path / "tools")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "connectors/samespace/counter_async.py").write_text(SOURCE, encoding="utf-8")
    return tmp_path


def generate(project: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the tool there."""
    command = [sys.executable, str(project / "tools" / "generate_sync.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def counter(project: Path) -> Path:
    return project / "connectors/samespace/counter.py"


def test_a_missing_twin_is_drift(project: Path) -> None:
    done = generate(project, "--check")
    assert done.returncode == 1
    assert "+class Counter:" in done.stdout
    assert not counter(project).exists()


def test_a_twin_is_written_and_then_current(project: Path) -> None:
    written = generate(project)
    assert (written.returncode, written.stdout) == (
        0,
        "wrote connectors/samespace/counter.py\n",
    )
    assert generate(project, "--check").returncode == 0
    again = generate(project)
    assert (again.returncode, again.stdout) == (0, "")


def test_a_twin_is_formatted_and_runs(project: Path) -> None:
    generate(project)
    text = counter(project).read_text(encoding="utf-8")
    assert text.startswith("# Generated from counter_async.py by tools/generate_sync.py")
    module: dict[str, object] = {"__name__": "counter"}
    exec(compile(text, "counter.py", "exec"), module)  # noqa: S102  what was just generated
    exec("with Counter(4) as c: answer = total(c)", module)  # noqa: S102
    assert module["answer"] == 6
    ruff = [sys.executable, "-m", "ruff", "format", "--check", str(counter(project))]
    assert subprocess.run(ruff, capture_output=True, cwd=project, check=False).returncode == 0


@pytest.mark.parametrize("changed", ["counter.py", "counter_async.py"])
def test_a_change_of_either_side_is_drift(project: Path, changed: str) -> None:
    generate(project)
    path = project / "connectors/samespace" / changed
    path.write_text(path.read_text(encoding="utf-8").replace("range(", "reversed("), "utf-8")
    before = counter(project).read_text(encoding="utf-8")
    done = generate(project, "--check")
    assert done.returncode == 1
    assert "reversed(" in done.stdout
    assert counter(project).read_text(encoding="utf-8") == before
    assert generate(project).returncode == 0
    assert generate(project, "--check").returncode == 0


def test_a_twin_without_a_source_is_drift(project: Path) -> None:
    generate(project)
    (project / "connectors/samespace/counter_async.py").unlink()
    done = generate(project, "--check")
    assert done.returncode == 1
    assert "its async source is gone" in done.stdout


def test_a_file_written_by_hand_is_never_overwritten(project: Path) -> None:
    counter(project).write_text("by_hand = True\n", encoding="utf-8")
    done = generate(project)
    assert done.returncode == 1
    assert "was written by hand" in done.stderr
    assert counter(project).read_text(encoding="utf-8") == "by_hand = True\n"


@pytest.mark.parametrize(
    "text",
    ["import asyncio\n\nx = asyncio.gather()\n", "from asyncio import gather\n"],
    ids=["call", "import"],
)
def test_what_cannot_be_made_sync_is_refused(project: Path, text: str) -> None:
    (project / "connectors/samespace/counter_async.py").write_text(text, encoding="utf-8")
    done = generate(project)
    assert done.returncode == 1
    assert "asyncio is left" in done.stderr
    assert not counter(project).exists()


def test_an_unclosed_bracket_is_named() -> None:
    with pytest.raises(SystemExit, match="no closing bracket"):
        to_sync("x: Awaitable[int\n")


def test_the_tool_looks_at_this_project() -> None:
    assert Path(__file__).is_relative_to(generate_sync.ROOT)
