"""A protected network as programs for a device and for a cloud, with the bytes between them and what was measured."""

from splitleak.experiments.tools.deploy.folder import Deployment

__all__ = ["Deployment"]
