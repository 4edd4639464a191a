"""File formats: one module a container."""
