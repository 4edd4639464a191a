"""Pruning of language models: channels, groups of heads and layers go, and what remains makes up for them."""
