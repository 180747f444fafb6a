"""The servers of the tests as ``--store`` takes them."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from psycopg.conninfo import conninfo_to_dict


def postgres_address(conninfo: str) -> str:
    """A connection string as a URL."""
    parts = {key: str(value) for key, value in conninfo_to_dict(conninfo).items()}
    database = quote(parts.pop("dbname"))
    return f"postgresql:///{database}?{urlencode(parts)}"


def elasticsearch_address(url: str) -> str:
    """A URL of Elasticsearch by its own scheme."""
    return url.replace("http://", "elasticsearch://")
