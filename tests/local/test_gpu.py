"""The local backend on a GPU: the same vectors as on the processor, within what bfloat16 can say."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.local.naive import engine_of, farthest
from tests.models.paragraphs import paragraphs

from samespace.backends.jina_local import attention
from samespace.backends.jina_local.client import JinaLocalBackend
from samespace.protocols import Matrix

TEXTS = [*paragraphs(40), "a", "two words", " ".join(paragraphs(60)[40:])]


def nearness(left: Matrix, right: Matrix) -> float:
    """The least cosine of two rows."""
    return float(np.sum(left * right, axis=1).min())


def test_the_kernel_is_used_where_there_is_one(gpu: str, checkpoint: Path) -> None:
    local = JinaLocalBackend(checkpoint, device=gpu)
    has_half = torch.cuda.is_bf16_supported(including_emulation=False)
    assert local.provenance()["dtype"] == ("bfloat16" if has_half else "float32")
    is_ampere = torch.cuda.get_device_capability() >= (8, 0)
    if has_half and is_ampere and attention._kernel() is not None:
        assert engine_of(local).weights.way == "varlen"


@pytest.mark.parametrize("way", ["varlen", "segments", "padded"])
def test_each_way_in_half_precision(
    gpu: str, checkpoint: Path, local: JinaLocalBackend, way: attention.Way
) -> None:
    if way == "varlen" and not attention._runs_kernel(torch.device(gpu)):
        pytest.skip("this torch or this GPU has no kernel for it")
    there = JinaLocalBackend(checkpoint, device=gpu, dtype="bfloat16", token_budget=1000)
    engine_of(there).weights.way = way
    assert nearness(there.embed_documents(TEXTS), local.embed_documents(TEXTS)) > 0.999
    assert nearness(there.embed_queries(TEXTS), local.embed_queries(TEXTS)) > 0.999
    documents = [TEXTS[:7], TEXTS[7:8], TEXTS[8:30]]
    here = np.concatenate(local.embed_chunks(documents))
    assert nearness(np.concatenate(there.embed_chunks(documents)), here) > 0.999


def test_full_precision_is_that_of_the_processor(
    gpu: str, checkpoint: Path, local: JinaLocalBackend
) -> None:
    there = JinaLocalBackend(checkpoint, device=gpu, dtype="float32", token_budget=1000)
    assert farthest(there.embed_documents(TEXTS), local.embed_documents(TEXTS)) <= 1e-4


def test_queries_and_documents_at_once(gpu: str, checkpoint: Path) -> None:
    there = JinaLocalBackend(checkpoint, device=gpu, token_budget=500)
    documents, query = there.embed_documents(TEXTS), there.embed_query(TEXTS[0])
    found: list[Matrix] = []
    work = threading.Thread(
        target=lambda: found.extend(there.embed_documents(TEXTS) for _ in range(5))
    )
    work.start()
    queries = [there.embed_query(TEXTS[0]) for _ in range(50)]
    work.join()
    assert all(nearness(each, documents) > 0.9999 for each in found)
    assert nearness(np.stack(queries), np.tile(query, (50, 1))) > 0.9999


def test_memory_does_not_grow_with_a_document(gpu: str, checkpoint: Path) -> None:
    there = JinaLocalBackend(checkpoint, device=gpu, token_budget=8192)
    there.embed_chunks([paragraphs(10)])
    peaks = []
    for times in (20, 200):  # some 5 and 50 windows
        torch.cuda.reset_peak_memory_stats()
        there.embed_chunks([paragraphs(60) * times])
        peaks.append(torch.cuda.max_memory_allocated())
    assert there.usage().tokens > 40 * 8192
    assert peaks[1] <= 1.02 * peaks[0]
