"""Every threshold of the judge: what a number must reach before something is said of it."""

LEVEL = 0.95
"""Of every interval."""
POWER = 0.8
"""How often the smallest difference that could have been seen would have been (Cohen, Statistical Power Analysis for
the Behavioral Sciences, 1988)."""
EXPOSED = 0.1
"""The share of the photos, those that leak most, that stands for the worst case."""
AGREE = 0.5
"""Share of the resamples in which a member of a Pareto set must be in it."""
SPAN = 0.1
"""The loss of utility up to which the area under a tradeoff curve is taken."""
CHOSEN = 0.1
"""Share of its photos that a suite leaves to an attack whose doubts it then inherits, and of the photos that a slow
attack tried beyond which the suite is held to these."""
COMMON = 0.5
"""Share of the cells from which on a flag tells of the whole table and of no number in it."""
FEW_PHOTOS = 50
MATERIAL = 0.1
"""In dB: pairs of hundreds of photos tell smaller differences from zero, and nobody sees them."""
CUT_OFF = 0.05
"""Share of the pixels beyond which a dark range that is cut off is no accident."""
TAIL = 0.1
"""Share of a training's curve that is looked at, from its end."""
STILL_GAINED = 0.01
"""Share of the whole gain that the tail may bring: steady progress would bring ten times as much."""
PAST_BEST = 0.2
"""Share of a training's curve, at its end, in which its best epoch should lie."""
GIVEN_BACK = 0.05
"""Share of the whole gain that a training which goes on past its best may lose again: less is luck."""
FALSE_DISCOVERIES = 0.05
"""The share of what is called a change, on average at most, that is none."""
FAR = 0.01
"""False accepts at which verification is scored."""
RANK_1, TAR = "rank1", "tar_at_far_1"
PERSONAL = (RANK_1, TAR)
"""Metrics whose mean counts each person once (macro), see ``person_means``; their values are of photos."""
