"""The Elasticsearch that the tests run on has what a store of vectors needs."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from elasticsearch.helpers import pack_dense_vector

VECTORS = {"x": [1.0, 0.0, 0.0], "y": [0.0, 1.0, 0.0], "xy": [0.8, 0.6, 0.0]}
MAPPINGS = {
    "dynamic": "strict",
    "properties": {
        "terms": {"type": "keyword"},
        "vector": {
            "type": "dense_vector",
            "dims": 3,
            "similarity": "cosine",
            "index_options": {"type": "hnsw"},
        },
    },
}


@pytest.fixture
def index(elasticsearch: str) -> Iterator[httpx.Client]:
    """A client whose base is an index of its own."""
    base = f"{elasticsearch}/t{uuid.uuid4().hex[:12]}"
    with httpx.Client(base_url=base, timeout=60, trust_env=False) as client:
        body = {"mappings": MAPPINGS, "settings": {"number_of_replicas": 0}}
        client.put("", json=body).raise_for_status()
        yield client
        client.delete("").raise_for_status()


def packed(vector: list[float]) -> str:
    return pack_dense_vector(np.array(vector, dtype=np.float32))


def fill(index: httpx.Client) -> None:
    for key, vector in VECTORS.items():
        document = {"terms": [key], "vector": packed(vector)}
        index.put(f"/_doc/{key}", json=document).raise_for_status()
    index.post("/_refresh").raise_for_status()


def search(index: httpx.Client, **body: Any) -> list[str]:
    answer = index.post("/_search", json=body).raise_for_status().json()
    return [hit["_id"] for hit in answer["hits"]["hits"]]


def test_vectors_in_base64_are_found_by_a_vector_in_base64(index: httpx.Client) -> None:
    fill(index)
    nearest = {"field": "vector", "query_vector": packed([1, 0, 0]), "k": 2, "num_candidates": 9}
    assert search(index, knn=nearest) == ["x", "xy"]


def test_a_filter_holds_inside_the_search_for_the_nearest(index: httpx.Client) -> None:
    fill(index)
    where = {"term": {"terms": "y"}}
    nearest = {"field": "vector", "query_vector": packed([1, 0, 0]), "k": 1, "filter": where}
    assert search(index, knn=nearest) == ["y"]


def test_a_field_of_another_name_is_refused(index: httpx.Client) -> None:
    answer = index.put("/_doc/a", json={"other": packed([1, 0, 0])})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "strict_dynamic_mapping_exception"


def test_a_script_changes_documents_that_a_query_finds(index: httpx.Client) -> None:
    fill(index)
    change = {"source": "ctx._source.terms.add(params.term)", "params": {"term": "seen"}}
    query = {"term": {"terms": "y"}}
    answer = index.post("/_update_by_query", json={"script": change, "query": query})
    assert answer.raise_for_status().json()["updated"] == 1
    index.post("/_refresh").raise_for_status()
    assert search(index, query={"term": {"terms": "seen"}}) == ["y"]
