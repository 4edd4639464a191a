"""The command line."""

from bitwright.cli import commands, content, doctor, listing, practice, studio, sweep
from bitwright.cli.app import app

__all__ = ["app", "commands", "content", "doctor", "listing", "practice", "studio", "sweep"]
