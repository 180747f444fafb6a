"""The store in Elasticsearch."""
