"""Bitwright makes neural networks small and says, honestly, what every bit cost."""

__version__ = "0.1.0"
