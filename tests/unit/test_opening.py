"""Backends from their specs, stores from their addresses: two grammars, and errors that show them."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from samespace import JinaAPIBackend, OpenAICompatibleBackend, open_backend, open_store
from samespace.errors import AuthenticationFailed, BackendUnavailable, InvalidInput
from samespace.opening import FORMS, Address, credentials, has_password, loaded, parse_address
from samespace.testing.jina_quota import Quota
from samespace.testing.jina_server import JinaServer

LOGINS = (
    "QDRANT_API_KEY",
    "ELASTIC_API_KEY",
    "ELASTIC_USERNAME",
    "ELASTIC_PASSWORD",
    "ELASTIC_CA_CERTS",
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JINA_API_KEY", "key-of-a-test")
    for name in LOGINS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("spec", "space"),
    [
        ("hashing", "samespace-hashing@768"),
        ("hashing@256", "samespace-hashing@256"),
        ("jina", "jina-embeddings-v3@1024:retrieval.passage"),
        ("jina@768", "jina-embeddings-v3@768:retrieval.passage"),
        ("jina@1024:text-matching", "jina-embeddings-v3@1024:text-matching"),
        ("jina:jina-embeddings-v2-base-en", "jina-embeddings-v2-base-en@768"),
        ("jina:jina-embeddings-v3@64:separation", "jina-embeddings-v3@64:separation"),
        ("jina:jina-embeddings-v3:separation", "jina-embeddings-v3@1024:separation"),
        (
            "jina:jina-code-embeddings-0.5b:nl2code.passage",
            "jina-code-embeddings-0.5b@896:nl2code.passage",
        ),
    ],
)
def test_a_spec_names_a_backend(spec: str, space: str) -> None:
    assert str(open_backend(spec).space) == space


@pytest.mark.parametrize(
    ("spec", "space"),
    [
        ("openai:http://h:8080/v1#jina-embeddings-v3", "jina-embeddings-v3@1024"),
        ("openai:http://h/v1#jinaai/jina-embeddings-v3@256", "jina-embeddings-v3@256"),
        ("openai:https://h#m@7", "m@7"),
        ("openai:http://[::1]:8080#m@7:text-matching", "m@7:text-matching"),
        (
            "openai:http://h:80/v1@512:retrieval.passage",
            "jina-embeddings-v3@512:retrieval.passage",
        ),
        ("openai:http://h/v1:separation", "jina-embeddings-v3@1024:separation"),
        ("openai:http://h:8080", "jina-embeddings-v3@1024"),
        ("openai:http://h:8080:separation", "jina-embeddings-v3@1024:separation"),
    ],
)
def test_a_spec_names_a_server(spec: str, space: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_COMPATIBLE_MODEL", "jina-embeddings-v3")
    with open_served(spec) as backend:
        assert str(backend.space) == space
    with open_served("openai:http://h#m", dimensions=8) as backend:
        assert backend.space.dimensions == 8


def open_served(spec: str, **options: int) -> OpenAICompatibleBackend:
    backend = open_backend(spec, **options)
    assert isinstance(backend, OpenAICompatibleBackend)
    return backend


def test_a_model_with_a_colon_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_COMPATIBLE_MODEL", "nomic-embed-text:v1.5")
    with open_served("openai:http://h:11434/v1@768") as backend:
        assert backend.space.model == "nomic-embed-text:v1.5"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("openai", "no backend is known for 'openai'"),
        ("openai@7", "no backend is known for 'openai@7'"),
        ("openai:", "no backend is known for 'openai:…'"),
        ("openai:m@7", "no backend is known for 'openai:…'"),
        ("openai:secret", "no backend is known for 'openai:…'"),
        ("openai:h/v1#m@7", "no backend is known for 'openai:…'"),
        ("openai://h/v1#m@7", "no backend is known for 'openai:…'"),
        ("openai:ftp://h/v1#m@7", "no backend is known for 'openai:…'"),
        ("openai:http://#m@7", "no backend is known for 'openai:…'"),
        ("openai:http://h:x/v1#m@7", "no backend is known for 'openai:…'"),
        ("openai:http://[::1#m@7", "no backend is known for 'openai:…'"),
        ("openai:http://h/v1 #m@7", "no backend is known for 'openai:…'"),
        ("openai:http://h/v1#", "no backend is known for 'openai:…'"),
        ("openai:http://h/v1#@7", "no backend is known for 'openai:…'"),
        ("openai:http://h/v1#m@", "no backend is known for 'openai:…'"),
        ("openai:http://h/v1#m@x", "no backend is known for 'openai:…'"),
        ("openai:http://h/v1#m@7:", "no backend is known for 'openai:…'"),
        ("openai:http://h/v1#m@7:a:b", "no backend is known for 'openai:…'"),
        ("openai:http://h/v1#m@7@8", "no backend is known for 'openai:…'"),
        ("openai:http://h/v1#m:tag@7", "no backend is known for 'openai:…'"),
        ("openai:http://user:secret@h/v1#m@7", "no backend is known for 'openai:…'"),
        ("openai:http://user:secret@7", "no backend is known for 'openai:…'"),
        ("openai:http://h/v1?key=secret#m@7", "no backend is known for 'openai:…'"),
        ("openai:http://h/v1#m?key=secret@7", "no backend is known for 'openai:…'"),
        ("OpenAI:http://user:secret@h/v1#m@7", "no backend is known for 'OpenAI:…'"),
        ("http://user:secret@h/v1#m@7", "no backend is known for 'http:…'"),
        ("openai:http://h/v1", "the spec of 'http://h/v1' names no model"),
        ("openai:http://h/v1@7", "the spec of 'http://h/v1' names no model"),
        ("openai:http://h:80:secret", "the spec of 'http://h:80' names no model"),
        ("openai:http://h/v1#of-ours", "how many dimensions 'of-ours' has is not known"),
        ("openai:http://h/v1#m@0", "pass 1 to 16000"),
        ("openai:http://h/v1#m@99999", "pass 1 to 16000"),
        ("openai:http://h/v1#jina-embeddings-v3@2000", "1 to 1024"),
        ("openai:http://h/v1#jina-embeddings-v3:poetry", "tasks for documents: retrieval.passage"),
    ],
)
def test_another_spec_of_a_server_is_refused_with_its_form(
    spec: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_COMPATIBLE_MODEL", raising=False)
    with pytest.raises(InvalidInput, match=said) as caught:
        open_backend(spec)
    form = "openai:http://localhost:8080/v1#MODEL@DIMENSIONS:TASK"
    assert form in str(caught.value)
    assert "OPENAI_COMPATIBLE_MODEL" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("port", ["0", "99999"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(InvalidInput, match="write it like http://localhost:8080/v1"):
        open_backend(f"openai:http://h:{port}/v1#m@7")


@pytest.mark.parametrize("spec", ["hashing", "jina"])
def test_dimensions_may_be_given_beside(spec: str) -> None:
    assert open_backend(spec, dimensions=64).space.dimensions == 64
    assert open_backend(f"{spec}@64", dimensions=64).space.dimensions == 64


@pytest.mark.parametrize(
    "spec",
    ["hashing@256", "jina@256", "jina:jina-embeddings-v3@256", "openai:http://h/v1#m@256"],
)
def test_dimensions_that_contradict_the_spec_are_refused(spec: str) -> None:
    with pytest.raises(InvalidInput, match="256 dimensions .* 64; leave one out"):
        open_backend(spec, dimensions=64)


@pytest.mark.parametrize(
    ("spec", "share", "said"),
    [
        ("hashing", 0.5, "no rate limits"),
        ("jina", 0, "share"),
        ("jina", 2.0, "share"),
        ("openai:http://localhost/v1#m@8", 2.0, "share"),
    ],
)
def test_a_share_is_a_part_of_limits(spec: str, share: float, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        open_backend(spec, share=share)


def test_a_backend_keeps_to_its_share_of_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    with JinaServer(keys=("key-of-a-test",), quota=Quota(in_flight=1)) as server:
        monkeypatch.setenv("JINA_BASE_URL", server.url)
        backend = open_backend("jina@64", share=0.25)  # of four requests at a time
        assert isinstance(backend, JinaAPIBackend)
        with backend:
            assert len(backend.embed_documents([f"text {n}" for n in range(4000)])) == 4000
        assert {status for _, status in server.statuses} == {200}
        assert len(server.statuses) > 4


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "magic",
        "Jina",
        "hashing:model",
        "hashing@256:retrieval.passage",
        "jina:retrieval.passage",
        "jina:no-such-model",
        "jina@",
        "jina@x",
        "jina@768@768",
        "jina:a:b:c",
        "jina ",
        "jina@\u0667",
    ],
)
def test_another_spec_is_refused_with_the_grammar(spec: str) -> None:
    with pytest.raises(InvalidInput, match="NAME:MODEL@DIMENSIONS:TASK"):
        open_backend(spec)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("jina@2000", "1 to 1024"),
        ("jina@0", "1 to 1024|1 to 16000"),
        ("jina@768:poetry", "text-matching"),
        ("jina:jina-embeddings-v2-base-en@512", "exactly 768"),
    ],
)
def test_what_a_model_lacks_is_refused_by_name(spec: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        open_backend(spec)


def test_the_api_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JINA_API_KEY")
    with pytest.raises(AuthenticationFailed, match="JINA_API_KEY"):
        open_backend("jina")


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://u:secret@h/db",
        "postgresql://u:a@b@h/db",
        "postgresql://u:a/b@h/db",
        "postgresql://:secret@h",
        "postgresql://u@h/db?password=secret",
        "postgresql://u@h/db?sslpassword=secret",
        "host=h password = 'a secret'",
    ],
)
def test_a_password_is_noticed(address: str) -> None:
    assert has_password(address)


@pytest.mark.parametrize(
    "address",
    ["embedded", "postgresql://u@h:5432/db", "postgresql://h:5432/db", "host=h user=a@b"],
)
def test_where_there_is_no_password(address: str) -> None:
    assert not has_password(address)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("mysql://u:p@secret@h/db", "'mysql:'"),
        ("mysql://u:pa/secret@h/db", "'mysql:'"),
        ("mysql://h/db?user=a&password=secret", "'mysql:'"),
        ("mysql:host=h password='a secret'", "'mysql:'"),
        ("redis://:secret@h", "'redis:'"),
        ("password='a secret'", "this address"),
        ("secret", "this address"),
    ],
)
def test_of_an_address_without_a_store_the_scheme_alone_is_shown(address: str, shown: str) -> None:
    with pytest.raises(
        InvalidInput, match=f"^no store is known for {shown}; use embedded"
    ) as caught:
        open_store(address, collection="manuals")
    assert "secret" not in str(caught.value)


# Addresses


@pytest.mark.parametrize(
    ("url", "store", "source"),
    [
        ("embedded", "pgvector", "embedded"),
        ("postgresql://u@h:5432/db", "pgvector", "postgresql://u@h:5432/db"),
        ("postgres://h/db", "pgvector", "postgres://h/db"),
        ("qdrant://h:6333", "qdrant", "http://h:6333"),
        ("qdrant+https://h/prefix", "qdrant", "https://h/prefix"),
        ("qdrant::memory:", "qdrant", ":memory:"),
        ("qdrant:data/qdrant", "qdrant", "data/qdrant"),
        ("qdrant:/var/lib/q@2?", "qdrant", "/var/lib/q@2?"),
        ("elasticsearch://h:9200", "elasticsearch", "http://h:9200"),
        ("elasticsearch://[::1]:9200/path", "elasticsearch", "http://[::1]:9200/path"),
        ("elasticsearch+https://h", "elasticsearch", "https://h"),
    ],
)
def test_an_address_names_a_store(url: str, store: str, source: str) -> None:
    assert parse_address(url) == Address(store, source)


@pytest.mark.parametrize(
    "url", ["", "qdrant:", "http://h:6333", "QDRANT://h", "elasticsearch:h", "mysql://h", "manuals"]
)
def test_another_address_is_refused_with_every_form(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_address(url)
    assert FORMS in str(caught.value)


@pytest.mark.parametrize(
    ("url", "mend"),
    [
        ("qdrant://user:secret@h:6333", "QDRANT_API_KEY"),
        ("qdrant+https://h?api_key=secret", "api_key="),
        ("elasticsearch://elastic:secret@h:9200", "ELASTIC_PASSWORD"),
        ("elasticsearch+https://h#secret", "ELASTIC_API_KEY"),
    ],
)
def test_a_secret_in_an_address_is_refused_where_there_is_an_option(url: str, mend: str) -> None:
    with pytest.raises(InvalidInput, match=mend) as caught:
        open_store(url, collection="manuals")
    assert "secret" not in str(caught.value)


def test_an_address_does_not_show_its_source() -> None:
    assert "secret" not in repr(parse_address("postgresql://u:secret@h/db"))


def test_an_option_that_a_store_lacks_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="PgVectorStore has no option api_key, flavour; it has"):
        open_store("postgresql://h/db", collection="manuals", flavour=1, api_key="secret")


# Logins


@pytest.mark.parametrize(
    ("url", "given", "found"),
    [
        ("qdrant://h", {"QDRANT_API_KEY": "k"}, {"api_key": "k"}),
        ("qdrant:folder", {"QDRANT_API_KEY": "k"}, {}),
        ("qdrant://h", {"ELASTIC_API_KEY": "k"}, {}),
        ("elasticsearch://h", {"ELASTIC_API_KEY": "k"}, {"api_key": "k"}),
        ("elasticsearch://h", {"ELASTIC_PASSWORD": "p"}, {"basic_auth": ("elastic", "p")}),
        (
            "elasticsearch://h",
            {"ELASTIC_PASSWORD": "p", "ELASTIC_USERNAME": "reader"},
            {"basic_auth": ("reader", "p")},
        ),
        (
            "elasticsearch+https://h",
            {"ELASTIC_API_KEY": "k", "ELASTIC_PASSWORD": "p", "ELASTIC_CA_CERTS": "ca.pem"},
            {"api_key": "k", "ca_certs": "ca.pem"},
        ),
        ("elasticsearch://h", {"ELASTIC_USERNAME": "reader"}, {}),
        ("postgresql://h/db", {"QDRANT_API_KEY": "k", "ELASTIC_API_KEY": "k"}, {}),
    ],
)
def test_a_login_is_found_in_the_environment(
    url: str, given: dict[str, str], found: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert credentials(parse_address(url), {}) == found


@pytest.mark.parametrize("option", ["api_key", "basic_auth"])
def test_a_login_that_is_passed_goes_before_the_environment(
    option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELASTIC_API_KEY", "of the environment")
    assert credentials(parse_address("elasticsearch://h"), {option: "passed"}) == {}


def test_a_port_for_grpc_is_found_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QDRANT_GRPC_PORT", "6x")
    with pytest.raises(InvalidInput, match="QDRANT_GRPC_PORT is '6x'"):
        open_store("qdrant://127.0.0.1:1", collection="notes", backend="hashing@8")
    with open_store("qdrant::memory:", collection="notes", backend="hashing@8") as store:
        store.create()  # which has no ports
    monkeypatch.setenv("QDRANT_GRPC_PORT", "70000")
    with pytest.raises(InvalidInput, match="grpc_port"):
        open_store("qdrant://127.0.0.1:1", collection="notes", backend="hashing@8")


# Drivers and backends


def test_a_driver_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("http", "jina_api"):
        monkeypatch.delitem(sys.modules, f"samespace.backends.{module}.client", raising=False)
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(InvalidInput, match=r'httpx is not .* pip install "samespace\[jina\]"'):
        open_backend("jina")


def test_a_module_of_ours_that_is_missing_is_no_missing_driver() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_store"):
        loaded("stores.no_such_store.store", extra="all")


UNREACHED = [
    ("postgresql://127.0.0.1:1/db", "PgVectorStore"),
    ("qdrant://127.0.0.1:1", "QdrantStore"),
    ("qdrant::memory:", "QdrantStore"),
    ("elasticsearch://127.0.0.1:1", "ElasticsearchStore"),
    ("elasticsearch+https://localhost", "ElasticsearchStore"),
]
"""Addresses that nothing is sent to."""


@pytest.mark.parametrize(("url", "kind"), UNREACHED)
def test_a_backend_made_from_a_spec_is_closed_with_the_store(url: str, kind: str) -> None:
    store = open_store(url, collection="manuals", backend="jina@64")
    assert type(store).__name__ == kind
    backend = store.backend
    assert backend is not None
    store.close()
    with pytest.raises(BackendUnavailable, match="closed"):
        backend.embed_query("text")


def test_a_backend_that_was_passed_stays_open() -> None:
    backend = open_backend("hashing@64")
    with open_store("postgresql://127.0.0.1:1/db", collection="manuals", backend=backend):
        pass
    assert backend.embed_query("text").shape == (64,)


@pytest.mark.parametrize("spec", [None, 5, b"jina"])
def test_a_spec_is_a_string(spec: Any) -> None:
    with pytest.raises(InvalidInput, match="no backend is known for"):
        open_backend(spec)


def test_what_a_spec_cannot_say_is_said_in_python() -> None:
    with pytest.raises(InvalidInput, match="retrieval.query, which a spec cannot say"):
        open_backend("openai:http://h#jina-clip-v2")
