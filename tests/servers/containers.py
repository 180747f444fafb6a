"""Servers in containers, from the images and settings of ``docker/compose.yaml``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import yaml
from docker.errors import DockerException
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import HttpWaitStrategy
from tests.servers.untested import NotHere

COMPOSE: Final = Path(__file__).parents[2] / "docker" / "compose.yaml"
START_SECONDS: Final = 300
"""For a server; the time that it takes to fetch its image is not counted."""


def compose() -> dict[str, Any]:
    """What the file says of services and volumes."""
    content: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return content


@contextmanager
def running(service: str, *ports: int, ready: str) -> Iterator[list[str]]:
    """Run a service while the context lasts; ``host:port`` for each of its ports.

    It is ready when the path ``ready`` of the first port answers with 200. :class:`NotHere` where
    no Docker daemon answers, or the service does not start.
    """
    described = compose()["services"][service]
    with ExitStack() as stack:
        try:
            made = DockerContainer(described["image"], env=described.get("environment"))
            made.with_exposed_ports(*ports).waiting_for(_answer(ports[0], ready))
            container = stack.enter_context(made)
            host = container.get_container_host_ip()
            addresses = [f"{host}:{container.get_exposed_port(port)}" for port in ports]
        except (DockerException, OSError) as error:
            raise NotHere(f"no container of {described['image']}: {error}") from error
        yield addresses


def _answer(port: int, path: str) -> HttpWaitStrategy:
    return HttpWaitStrategy(port, path).for_status_code(200).with_startup_timeout(START_SECONDS)
