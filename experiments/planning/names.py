"""Names that plans, stored runs and reports share."""

from pathlib import Path

UNDEFENDED, FLOOR = "none", "mean_image"
"""The controls: a plan that does not name them has them all the same, for nothing can be read without them."""

STRONGEST = "strongest"
"""The suite's choice among all attacks; no attack may be called so."""

EFFORT = "effort"
"""How an attack's table in a plan calls its budget; no setting may be called so."""

MATCH = "match"
"""How a defence's table in a plan, or the plan for all, asks for a strength that loses so much accuracy; no setting
may be called so."""

CACHE = "cache"
"""Folder, beside the runs, of the stages' results: runs share them."""

MEMBERS = "study.json"
"""In the folder of a study: which runs belong to it."""

MAY_LOSE = (0.01, 0.03)
"""Shares of utility that a defence may cost, where a plan does not say; beyond the last it is no longer comparable
with those that leave the task intact."""

PLANS = Path(__file__).parents[1] / "plans"
"""Folder of the built-in plans."""
