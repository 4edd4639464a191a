"""Stages that make a float model of a float model: planned, run, certified and reported as quantizing is."""
