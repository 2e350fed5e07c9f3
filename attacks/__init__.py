"""Attacks: what an adversary who intercepts releases can rebuild. One file per attack."""
