"""How near attacks come to an optimum, how often intervals hold, and speed as ratios: ``make bench``."""
