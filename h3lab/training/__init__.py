"""A feed to records, step by step: one generator, whoever drives it."""
