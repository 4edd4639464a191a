"""Methods: how the codes are chosen, one file each.

    from bitwright import methods
    method = methods.registry.get("descent")
    q = method.solve(w, format, methods.Seen(stats), method.options())

A file of this folder provides `METHOD`; one that needs torch is a folder, whose `__init__` imports the rest when it
runs.
"""

from bitwright.methods.method import Method, Options, Samples, Seen, fits_fixed
from bitwright.registry import Registry

registry: Registry[Method] = Registry(Method, "bitwright.methods", "METHOD", key="layer.method")

__all__ = ["Method", "Options", "Samples", "Seen", "fits_fixed", "registry"]
