"""Backends from their specs: one grammar, and an error that shows it."""

from __future__ import annotations

import pytest

from samespace import open_backend, open_store
from samespace.errors import AuthenticationFailed, InvalidInput
from samespace.opening import has_password


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JINA_API_KEY", "key-of-a-test")


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


@pytest.mark.parametrize("spec", ["hashing", "jina"])
def test_dimensions_may_be_given_beside(spec: str) -> None:
    assert open_backend(spec, dimensions=64).space.dimensions == 64
    assert open_backend(f"{spec}@64", dimensions=64).space.dimensions == 64


@pytest.mark.parametrize("spec", ["hashing@256", "jina@256", "jina:jina-embeddings-v3@256"])
def test_dimensions_that_contradict_the_spec_are_refused(spec: str) -> None:
    with pytest.raises(InvalidInput, match="256 dimensions .* 64; leave one out"):
        open_backend(spec, dimensions=64)


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
