"""Procedural portraits: a data set of faces that needs no download and holds no real person."""

from splitleak.victims.data.sources.faces.scenes import FaceScenes
from splitleak.victims.data.sources.faces.source import Faces

__all__ = ["FaceScenes", "Faces"]
