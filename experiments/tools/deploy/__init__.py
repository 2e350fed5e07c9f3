"""A protected network as programs for a device and for a cloud, with the bytes between them and what was measured."""

from splitleak.experiments.tools.deploy.folder import Deployment, check_folder

__all__ = ["Deployment", "check_folder"]
