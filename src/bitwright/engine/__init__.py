"""The engine: a recipe becomes a plan, a plan runs as a stream of events, and what it wrote is certified."""
