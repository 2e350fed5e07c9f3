"""Stages and their results on disk, found again by what they depend on."""
