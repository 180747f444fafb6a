"""A stranger's client of Elasticsearch that tells what it asked."""

from __future__ import annotations

from typing import Any, ClassVar

from elastic_transport import Urllib3HttpNode
from elasticsearch import Elasticsearch


class TellingNode(Urllib3HttpNode):
    """Sends every request, and keeps its method and path."""

    asked: ClassVar[list[tuple[str, str]]] = []

    def perform_request(self, method: str, target: str, *args: Any, **kw: Any) -> Any:
        self.asked.append((method, target))
        return super().perform_request(method, target, *args, **kw)


def telling_client(url: str) -> Elasticsearch:
    """A client whose requests are in ``TellingNode.asked``."""
    TellingNode.asked.clear()
    return Elasticsearch(url, node_class=TellingNode)
