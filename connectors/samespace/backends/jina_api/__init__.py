"""The embedding API of Jina: what is sent and read (``wire``), and the clients that do it."""
