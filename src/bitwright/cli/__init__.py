"""The command line."""

from bitwright.cli import commands, studio
from bitwright.cli.app import app

__all__ = ["app", "commands", "studio"]
