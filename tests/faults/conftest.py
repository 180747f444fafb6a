"""What faults are made on."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.contract.test_elasticsearch_contract import raw
from tests.contract.test_qdrant_contract import memory, prefix, raw_client
from tests.servers import elasticsearch_jars, java, untested
from tests.servers.elasticsearch import Node

from samespace.stores.pgvector import embedded

__all__ = ["memory", "prefix", "raw", "raw_client"]  # fixtures


@pytest.fixture
def folder() -> Iterator[Path]:
    """The data folder of a server that may be killed."""
    parent = Path(tempfile.mkdtemp(prefix="samespace-faults-"))
    parent.chmod(0o755)  # the server's account must get through
    yield parent / "postgres"
    embedded.stop(parent / "postgres", force=True)
    shutil.rmtree(parent)


@pytest.fixture(scope="session")
def node_programs(pytestconfig: pytest.Config) -> None:
    """What an Elasticsearch node without Docker is made of."""
    try:
        java.home()
        elasticsearch_jars.home()
    except untested.NotHere as error:
        untested.leave_out(pytestconfig, "Elasticsearch under faults", reason=error)


@pytest.fixture
def start_node(node_programs: None) -> Iterator[Callable[..., Node]]:
    """What starts an Elasticsearch node that may be killed; it takes a :class:`Node`'s arguments."""
    with ExitStack() as running:

        def start(settings: Mapping[str, str] | None = None, *, heap: str = "512m") -> Node:
            return running.enter_context(Node(settings, heap=heap))

        yield start
