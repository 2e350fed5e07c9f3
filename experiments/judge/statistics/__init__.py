"""What many photos, people and trainings tell together."""
