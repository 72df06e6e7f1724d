"""Travel: what of an object would not reach an engine, and why; found out in seconds, before a run is started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

LARGE_BYTES = 1_000_000


def culprit(value: Any, path: str, depth: int = 5) -> str | None:
    """The attribute path of the innermost thing in ``value`` that cannot be pickled, or None where all can."""
    if _travels(value):
        return None
    for name, part in _parts(value) if depth else ():
        found = culprit(part, f"{path}{name}", depth - 1)
        if found:
            return found
    return f"{path} (a {type(value).__module__}.{type(value).__qualname__})"


def check(actor: Any, lab: Any) -> list[str]:
    """What would go wrong on the engines of ``lab``, a line each: attributes that cannot be sent, parts over 1 MB, and
    modules that an engine's Python lacks. An empty list: it travels."""
    from h3lab.cluster.launch import own_modules

    found = []
    with own_modules():
        bad = culprit(actor, "actor")
        if bad:
            return [f"{bad} cannot be sent to an engine"]
        for name, part in _parts(actor):
            size = len(_bytes(part))
            if size > LARGE_BYTES:
                found.append(f"actor{name} is {size / 1e6:.1f} MB and is sent whole with every run")
        modules = sorted(_modules(_bytes(actor)))
    for slot, missing in lab.missing(modules).items():
        found += [f"{slot} cannot import {module!r}, which the actor needs" for module in missing]
    return found


def _bytes(value: Any) -> bytes:
    import cloudpickle

    return bytes(cloudpickle.dumps(value))


def _travels(value: Any) -> bool:
    try:
        _bytes(value)
    except Exception:  # whatever an object's own reduction raises
        return False
    return True


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from ((f"[{i}]", part) for i, part in enumerate(value))
    elif callable(value) and getattr(value, "__closure__", None):
        cells = zip(value.__code__.co_freevars, value.__closure__, strict=True)
        yield from ((f".<{name}>", cell.cell_contents) for name, cell in cells)
    if callable(value) and hasattr(value, "__globals__"):
        used = set(value.__code__.co_names)
        yield from ((f".<{name}>", part) for name, part in list(value.__globals__.items()) if name in used)
    else:
        yield from ((f".{name}", part) for name, part in getattr(value, "__dict__", {}).items())


def _modules(data: bytes) -> set[str]:
    """Top-level modules that a pickle imports by name, read from its opcodes without running it."""
    import pickletools

    pushed: list[Any] = []  # what was pushed last, as far as it is text: a name follows its module
    memo: dict[int, Any] = {}
    found = set()
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "GLOBAL":
            found.add(str(argument).partition(" ")[0])
        elif opcode.name == "STACK_GLOBAL":
            found.add(str(pushed[-2]))
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = pushed[-1] if pushed else None
            continue
        elif "GET" in opcode.name:
            argument = memo.get(int(argument or 0))
        pushed.append(argument if isinstance(argument, str) else None)
    return {name.partition(".")[0] for name in found} - {"__main__", "h3lab", "builtins"}
