"""Raw rows to a prepared set: fitted exactly, part by part, here or on engines."""
