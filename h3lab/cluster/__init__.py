"""The cluster: the one folder that speaks to ipyparallel. A lab owns runs, and a notebook only looks at them.

``lab`` is what a notebook holds. ``keeper`` is the detached process behind it, with ``slots`` over ``engines``,
``roster`` over runs and ``lease``. ``host`` lives in each engine and starts children: a ``rank`` of a run, a ``worker``
of a job. ``travel`` and ``launch`` carry the user's objects to them.
"""
