"""What docs/embed-server.md tells Elasticsearch to send is answered, where it says it looks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from string import Template
from typing import Any

import httpx
import pytest
from tests.server.lexical import LexicalBackend, unit
from tests.server.serving import KEY, TLS, served

PAGE = Path(__file__).parents[2] / "docs" / "embed-server.md"
TEXTS = ['a "quoted" text', "another\nline"]


def endpoints() -> dict[str, Any]:
    found = re.findall(
        r"```json\nPUT _inference/text_embedding/(\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL
    )
    return {name: json.loads(body)["service_settings"] for name, body in found}


@pytest.mark.parametrize(
    ("name", "task"), [("v3-passages", "retrieval.passage"), ("v3-queries", "retrieval.query")]
)
def test_elasticsearch_gets_vectors_of_the_task(name: str, task: str) -> None:
    settings, backend = endpoints()[name], LexicalBackend()
    secrets = dict.fromkeys(settings["secret_parameters"], KEY)
    headers = {
        name: Template(value).substitute(secrets) for name, value in settings["headers"].items()
    }
    body = Template(settings["request"]).substitute(input=json.dumps(TEXTS))
    with served(backend) as here:
        asked = settings["url"].replace("http://gpu-host:8080", here.root)
        answer = httpx.post(asked, content=body, headers=headers, verify=TLS)
    assert settings["response"]["json_parser"]["text_embeddings"] == "$.data[*].embedding[*]"
    found = [item["embedding"] for item in answer.json()["data"]]
    assert found == pytest.approx(unit(backend.texts(TEXTS, task, cuts=False).means), abs=1e-6)
    assert len(found[0]) == settings["dimensions"]
