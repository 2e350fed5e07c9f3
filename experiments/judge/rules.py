"""Every threshold of the judge: what a number must reach before something is said of it."""

LEVEL = 0.95
"""Of every interval."""
MAY_LOSE = (0.01, 0.03)
"""Shares of utility that a defence may cost; beyond the last it is no longer comparable with those that leave the
task intact."""
FEW_PHOTOS = 50
MATERIAL = 0.1
"""In dB: pairs of hundreds of photos tell smaller differences from zero, and nobody sees them."""
CUT_OFF = 0.05
"""Share of the pixels beyond which a dark range that is cut off is no accident."""
TAIL = 0.1
"""Share of a training's curve that is looked at, from its end."""
STILL_GAINED = 0.01
"""Share of the whole gain that the tail may bring: steady progress would bring ten times as much."""
FALSE_DISCOVERIES = 0.05
"""The share of what is called a change, on average at most, that is none."""
FAR = 0.01
"""False accepts at which verification is scored."""
