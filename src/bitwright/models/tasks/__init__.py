"""Measures of a network's quality: accuracy, agreement, word errors, boxes; each with an interval."""
