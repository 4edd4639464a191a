"""Plan, run, watch and check compressions of real models."""
