"""The servers that people start with Docker are those that the tests run on."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.servers import containers, elasticsearch_jars

SERVICES: dict[str, Any] = containers.compose()["services"]


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = SERVICES[request.param]
    return found


def test_there_is_a_server_for_each_store() -> None:
    assert SERVICES.keys() == {"postgres", "qdrant", "elasticsearch"}


def test_the_image_is_of_one_version(service: dict[str, Any]) -> None:
    assert re.fullmatch(r"[a-z./]+/[a-z]+:v?\d+\.\d+\.\d+(-pg\d+)?", service["image"])


def test_elasticsearch_is_the_version_that_runs_without_docker() -> None:
    assert SERVICES["elasticsearch"]["image"].endswith(f":{elasticsearch_jars.VERSION}")


def test_nobody_on_the_network_reaches_it(service: dict[str, Any]) -> None:
    assert all(re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) for port in service["ports"])


def test_it_says_when_it_is_ready(service: dict[str, Any]) -> None:
    check = service["healthcheck"]
    assert check["test"][0] == "CMD"
    assert {"interval", "timeout", "retries"} <= check.keys()


def test_its_data_outlive_it(service: dict[str, Any]) -> None:
    names = [volume.partition(":")[0] for volume in service["volumes"]]
    assert names
    assert set(names) <= containers.compose()["volumes"].keys()
