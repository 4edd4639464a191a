"""Several recipes on one model: planned together, run side by side, compared."""
