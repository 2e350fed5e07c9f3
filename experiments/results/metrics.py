"""Which metrics a report shows."""

LEAKAGE_METRICS = ("psnr", "ssim")
"""What a report's headline, curves and colours are about: how much of the photo comes back."""

EXPOSED = "_most_exposed"
"""How the name of such a metric's mean over the photos that leak most ends."""

SHOWN_METRICS = (*LEAKAGE_METRICS, "rank1", "balanced_accuracy")
"""What a report shows of a cell, all higher where more leaks; ``results.csv`` holds every metric."""
