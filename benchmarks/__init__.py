"""Ratios against peers and against psycopg by hand, measured in one run on one server."""
