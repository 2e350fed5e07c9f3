"""Data sets: one file, or package, per kind of source; each source is a ``Source``."""
