"""`python -m bitwright`: the command line, where its script is not on the path."""

from bitwright.cli import app

app(prog_name="bitwright")
