"""Several sources as one: rows of the first with the columns of others, looked up by their keys."""
