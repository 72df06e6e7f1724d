"""A run is its folder; what writes it and what looks at it."""
