"""What stands on runs and reports: audit, profile, reconstruct, export, check, new."""
