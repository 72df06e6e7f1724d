"""h3lab: a laboratory of learning actors inside a notebook. ``import h3lab as h3``."""

import lazy_loader

__version__ = "0.1.0"

_found, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    try:
        return _found(name)
    except AttributeError as error:
        if name in __all__ or name.startswith("_"):  # what its module raises is its own affair
            raise
        from .errors import NotOffered, closest

        close = closest(name, __all__)
        meant = f" Did you mean h3.{close}?" if close else ""
        raise NotOffered(f"h3lab has no {name!r}.{meant} It has: {', '.join(__all__)}.") from error
    except ModuleNotFoundError as error:
        from .worlds import missing

        if (told := missing(error, f"h3.{name}")) is None:
            raise
        raise told from error
