"""Loops that another framework drives, as runs of this process: one callback a framework, for ``h3.watch``.

Each knows when its framework tells it something, under which names, and which flag ends the loop.
"""
