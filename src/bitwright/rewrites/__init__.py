"""Rewrites: changes before quantization that leave the function of a network as it is."""
