"""Collections in PostgreSQL with pgvector."""
