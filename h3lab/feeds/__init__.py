"""The prepared set: stored, re-iterable, shardable."""
