"""Samples for networks: from folders, files and arrays to batches of feeds with labels."""
