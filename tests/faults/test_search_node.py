"""The Elasticsearch node that fault tests kill: what is left of it, and that none is left over."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from tests.servers.elasticsearch import Node
from tests.servers.untested import NotHere

CHILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have said to ignore it
from tests.servers.elasticsearch import Node
with Node() as node:
    print(node.url, node.folder, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=lambda how: how.name)
def test_a_node_ends_with_the_process_that_started_it(
    node_programs: None, how: signal.Signals
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with child:
        assert child.stdout is not None
        url, folder = child.stdout.readline().split()
        address = (httpx.URL(url).host, httpx.URL(url).port or 0)
        with socket.create_connection(address) as connection:
            child.send_signal(how)
            assert connection.recv(1) == b"", "the node is gone"
    while Path(folder).exists():  # it is removed at the very end
        time.sleep(0.05)


def test_a_node_that_does_not_start_says_why(node_programs: None) -> None:
    node = Node({"no.such.setting": "1"})
    with pytest.raises(NotHere, match=r"unknown setting \[no\.such\.setting\]"), node:
        pass
    assert not node.folder.exists()
