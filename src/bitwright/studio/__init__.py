"""The studio: a local web app that teaches compression and runs it, on the engine's real numbers."""
