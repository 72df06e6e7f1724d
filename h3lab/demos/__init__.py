"""Programs over the public face: a first run to look at, and the whole idea on real data."""
