"""Backends: each file wraps the models of one framework as :class:`h3lab.model.Model`, and nothing else."""
