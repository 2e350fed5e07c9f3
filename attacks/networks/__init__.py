"""Decoders: networks that turn a release into images."""
