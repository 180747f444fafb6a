"""Servers that embed by OpenAI's protocol: what is sent and read (``wire``), and the clients."""
