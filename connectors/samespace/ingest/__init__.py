"""Documents from files (``reading``), in chunks (``chunking``), into a store (``storing``)."""
