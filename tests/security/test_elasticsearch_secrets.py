"""A password for Elasticsearch shows up nowhere but on its way there: the contract, looked through."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.contract.test_elasticsearch_contract import AsyncHarness, Harness
from tests.security import test_secrets

from samespace.testing.contract_guard import GuardContract
from samespace.testing.contract_input import InputContract
from samespace.testing.contract_slots_async import AsyncSlotsContract

SECRET = test_secrets.SECRET
errors = test_secrets.errors  # looks through what each test makes


@pytest.fixture
def raw(elasticsearch: str) -> Iterator[Harness]:
    """A stranger with the client, who deletes what was made."""
    harness = Harness(elasticsearch.replace("http://", f"http://keeper:{SECRET}@"))
    with harness.client:
        yield harness
        harness.clear()


class TestOfAGuard(GuardContract):
    @pytest.fixture
    def harness(self, raw: Harness) -> Harness:
        return raw


class TestOfInput(InputContract):
    @pytest.fixture
    def harness(self, raw: Harness) -> Harness:
        return raw


class TestOfSlots(AsyncSlotsContract):
    @pytest.fixture
    def harness(self, raw: Harness) -> AsyncHarness:
        return AsyncHarness(raw)
