"""An archive of vectors: what was added is there, whatever ends a process, and nothing else is."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from samespace.errors import InvalidInput
from samespace.migrate.archive import VectorArchive, chunk_keys, document_key, rounded
from samespace.protocols import Matrix, Vector
from samespace.space import EmbeddingSpace
from samespace.testing.backends import UNLIKE, V3, TaskBackend
from samespace.vectors import cosines

PROCESS = Path(__file__).with_name("archiving_process.py")
TEXTS = [f"text {number} of a few" for number in range(12)]
KEYS = [document_key(V3, text) for text in TEXTS]


def vectors_of(texts: list[str]) -> Matrix:
    return TaskBackend().embed_documents(texts)


def kept(texts: list[str]) -> dict[bytes, Vector]:
    keys = [document_key(V3, text) for text in texts]
    return dict(zip(keys, vectors_of(texts), strict=True))


def filled(folder: Path, texts: list[str] = TEXTS) -> Path:
    """The one file of an archive with these."""
    with VectorArchive(folder, V3) as archive:
        archive.add(kept(texts))
    [path] = folder.iterdir()
    return path


def test_what_was_added_is_found_again_by_this_and_the_next(tmp_path: Path) -> None:
    with VectorArchive(tmp_path / "deep" / "folder", V3) as archive:
        archive.add(kept(TEXTS[:5]))
        archive.add(kept(TEXTS[5:]))
        archive.add({})
        here = archive.find(KEYS)
        assert archive.find([document_key(V3, "unknown")]) == archive.find([]) == {}
    with VectorArchive(tmp_path / "deep" / "folder", V3) as again:
        there = again.find(KEYS)
        assert len(again) == len(TEXTS)
    for found in (here, there):
        np.testing.assert_array_equal([found[key] for key in KEYS], rounded(vectors_of(TEXTS)))


def test_rounding_turns_no_vector_away(tmp_path: Path) -> None:
    random = np.random.default_rng(7).standard_normal((2_000, 1024))
    unit = np.asarray(random / np.linalg.norm(random, axis=1, keepdims=True), np.float32)
    assert (1 - cosines(unit, rounded(unit))).max() < 6e-8


def test_keys_are_of_the_space_the_text_and_how_it_was_embedded() -> None:
    shorter = replace(V3, dimensions=32)
    keys = [
        document_key(V3, "a"),
        document_key(shorter, "a"),
        document_key(V3, "b"),
        document_key(V3, "a", cut=True),
        *chunk_keys(V3, ["a", "b"]),
        *chunk_keys(V3, ["ab", ""]),
        *chunk_keys(V3, ["a"]),
    ]
    assert len(set(keys)) == len(keys)
    assert chunk_keys(V3, ["a", "a"])[0] != chunk_keys(V3, ["a", "a"])[1]


def test_a_record_that_was_torn_is_cut_off_and_written_over(tmp_path: Path) -> None:
    size = 20 + 2 * V3.dimensions
    whole = filled(tmp_path / "whole").read_bytes()
    for lost in (1, size // 2, size - 1, size, size + 3):
        folder = tmp_path / str(lost)
        filled(folder).write_bytes(whole[:-lost])
        with VectorArchive(folder, V3) as archive:
            left = len(TEXTS) - 1 - lost // (size + 1)
            assert (len(archive), [*archive.find(KEYS)]) == (left, KEYS[:left])
            archive.add(kept(TEXTS[left:]))
        with VectorArchive(folder, V3) as again:
            assert [*again.find(KEYS)] == KEYS


def test_a_beginning_that_was_torn_is_written_again(tmp_path: Path) -> None:
    header = filled(tmp_path / "whole", []).read_bytes()
    for length in (0, 1, 19, 20, 21, len(header) - 1):
        folder = tmp_path / str(length)
        filled(folder, []).write_bytes(header[:length])
        with VectorArchive(folder, V3) as archive:
            archive.add(kept(TEXTS))
        with VectorArchive(folder, V3) as again:
            assert [*again.find(KEYS)] == KEYS
        assert len([*folder.iterdir()]) == 1


def test_a_damaged_record_counts_as_absent_and_can_be_added_again(tmp_path: Path) -> None:
    path = filled(tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with VectorArchive(tmp_path, V3) as archive:
        assert [*archive.find(KEYS)] == KEYS[:-1]
        archive.add(kept(TEXTS[-1:]))
        assert [*archive.find(KEYS)] == KEYS
    with VectorArchive(tmp_path, V3) as again:
        assert [*again.find(KEYS)] == KEYS


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"samespace vectors 2\nwhatever", "newer format"),
        (b"samespace vectors 1\n{}\n", "damaged"),
        (b"samespace vectors 1\n{not json\n", "damaged"),
        (b"\x00" * 4096, "damaged"),
        (b"something else altogether", "damaged"),
    ],
)
def test_a_file_that_is_none_of_these_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.vectors").write_bytes(content)
    with pytest.raises(InvalidInput, match=said) as refused:
        VectorArchive(tmp_path, V3)
    assert "a.vectors" in str(refused.value)
    assert "--keep-full" in str(refused.value)
    assert (tmp_path / "a.vectors").read_bytes() == content


def test_a_folder_of_another_space_or_none_at_all_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "v3")
    for other in (UNLIKE, replace(V3, dimensions=32), replace(V3, task="separation")):
        with pytest.raises(InvalidInput, match="holds vectors of") as refused:
            VectorArchive(tmp_path / "v3", other)
        assert str(V3) in str(refused.value)
        assert str(other) in str(refused.value)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="cannot use the folder"):
        VectorArchive(tmp_path / "file", V3)
    (tmp_path / "odd" / "b.vectors").mkdir(parents=True)
    with pytest.raises(InvalidInput, match="cannot use the folder"):
        VectorArchive(tmp_path / "odd", V3)
    with pytest.raises(InvalidInput, match="unit vectors"):
        VectorArchive(tmp_path / "raw", replace(V3, normalized=False))


def test_a_closed_one_says_so(tmp_path: Path) -> None:
    archive = VectorArchive(tmp_path, V3)
    archive.close()
    archive.close()
    with pytest.raises(InvalidInput, match="closed"):
        archive.find(KEYS)


def test_each_that_is_open_has_a_file_of_its_own_and_the_next_uses_them_again(
    tmp_path: Path,
) -> None:
    with VectorArchive(tmp_path, V3) as one, VectorArchive(tmp_path, V3) as two:
        one.add(kept(TEXTS[:6]))
        two.add(kept(TEXTS[6:]))
        assert len([*tmp_path.iterdir()]) == 2
    with VectorArchive(tmp_path, V3) as three:
        assert [*three.find(KEYS)] == KEYS
        three.add(kept(["more"]))
    assert len([*tmp_path.iterdir()]) == 2


def test_threads_share_it(tmp_path: Path) -> None:
    texts = [f"{TEXTS[number % 12]} {number}" for number in range(400)]
    with VectorArchive(tmp_path, V3) as archive, ThreadPoolExecutor(8) as threads:
        for _ in threads.map(lambda text: archive.add(kept([text])), texts):
            pass
        assert len(archive.find([document_key(V3, text) for text in texts])) == len(texts)


def test_of_processes_that_are_killed_while_they_add_nothing_is_lost(tmp_path: Path) -> None:
    said: list[str] = []
    for run in range(2):
        running = [adding(tmp_path, f"{name} {run}") for name in ("one", "two")]
        pipes = [process.stdout for process in running if process.stdout is not None]
        said += [pipe.readline() for pipe in pipes for _ in range(40)]
        for process, pipe in zip(running, pipes, strict=True):
            process.kill()
            said += pipe.readlines()
            pipe.close()
            process.wait()
    texts = [line.rstrip("\n") for line in said if line.endswith("\n")]
    with VectorArchive(tmp_path, V3) as archive:
        found = archive.find([document_key(V3, text) for text in texts])
        assert len(found) == len(texts)
        assert cosines(np.stack([*found.values()]), vectors_of(texts)).min() > 1 - 1e-6
    assert len([*tmp_path.iterdir()]) == 2


def adding(folder: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(PROCESS), str(folder), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_disk_that_is_full_is_told_and_nothing_is_broken(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, PROCESS, tmp_path, "full", "5000"],
        capture_output=True,
        text=True,
        check=True,
    )
    told, after = done.stdout.splitlines()
    assert "cannot write the archive of vectors" in told
    assert after == "1"
    with VectorArchive(tmp_path, V3) as archive:
        keys = [document_key(V3, f"{number} {place}") for number in range(30) for place in range(3)]
        assert len(archive.find([*keys, document_key(V3, "after")])) > 20


def test_memory_is_a_few_bytes_a_row(tmp_path: Path) -> None:
    space = EmbeddingSpace(model="jina-embeddings-v3", dimensions=32)
    count, step = 40_000, 1_000
    one = np.full(32, 32**-0.5, np.float32)
    random = np.random.default_rng(3)
    with VectorArchive(tmp_path, space) as archive:
        for _ in range(0, count, step):
            archive.add({random.bytes(16): one for _ in range(step)})
    tracemalloc.start()
    try:
        with VectorArchive(tmp_path, space) as archive:
            for _ in range(3):
                archive.add({random.bytes(16): one for _ in range(step)})
            assert len(archive) == count + 3 * step
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 100 * count
