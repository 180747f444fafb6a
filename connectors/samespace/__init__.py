"""Vector-store connectors that keep every vector of a collection in one embedding space."""
