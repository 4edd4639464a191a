"""The command line."""

from bitwright.cli import commands, content, doctor, listing, practice, stages, studio, sweep
from bitwright.cli.app import app

__all__ = ["app", "commands", "content", "doctor", "listing", "practice", "stages", "studio", "sweep"]
