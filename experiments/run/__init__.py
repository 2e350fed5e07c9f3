"""Drives cells: the graph of what is missing, and who works it off."""
