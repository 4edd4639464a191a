"""`python -m bitwright.cli`."""

from bitwright.cli import app

app()
