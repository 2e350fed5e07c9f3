"""Defences: what is put between encoder and tail, or into training. One file per defence."""
