"""What turns texts into vectors: one module or package a backend."""
