"""Which metrics a report shows."""

LEAKAGE_METRICS = ("psnr", "ssim")
"""What a report's headline, curves and colours are about: how much of the photo comes back."""

SHOWN_METRICS = (*LEAKAGE_METRICS, "rank1", "balanced_accuracy")
"""What a report shows of a cell, all higher where more leaks; ``results.csv`` holds every metric."""
