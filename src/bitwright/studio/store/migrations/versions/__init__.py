"""One file = one change: `NNNN_what.py`, NNNN one more than the last. A published one is never edited."""
