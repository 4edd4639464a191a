"""File formats: one module per container."""
