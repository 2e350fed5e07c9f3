"""Data sets: one file per kind of source, each a ``Source``; parts.py divides what they hold."""
