"""h3lab: a laboratory of learning actors inside a notebook. ``import h3lab as h3``."""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
