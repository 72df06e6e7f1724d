"""Imported by the forkserver of a slot's ranks, which can import modules but call nothing."""

from h3lab.cluster.preload import RANK, load

SECONDS = load(RANK)
