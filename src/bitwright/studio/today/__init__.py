"""The daily edition."""
