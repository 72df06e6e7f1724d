"""Imported by the forkserver of a slot's workers, which can import modules but call nothing."""

from h3lab.cluster.preload import WORKER, load

SECONDS = load(WORKER)
