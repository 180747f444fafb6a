"""Jina's v3 on this machine: its weights, its tasks and late chunking, without an API."""
