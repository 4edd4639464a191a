"""The studio's side that sees the engine: a warm process that computes what the pages show. See `__main__.py`."""
