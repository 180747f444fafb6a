"""Embedding for others: a model on this machine behind the HTTP contract of Jina's API."""

from samespace.server.app import create_app
from samespace.server.keys import read_keys
from samespace.server.running import serve
from samespace.server.servable import Found, HasServable, Servable

__all__ = ["Found", "HasServable", "Servable", "create_app", "read_keys", "serve"]
