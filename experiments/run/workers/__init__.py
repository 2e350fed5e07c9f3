"""Executors with workers of their own: processes of this machine, and tasks of a Ray cluster."""

from splitleak.experiments.run.workers.base import Workshop, cores, default_workers
from splitleak.experiments.run.workers.processes import Processes
from splitleak.experiments.run.workers.ray import Ray

__all__ = ["Processes", "Ray", "Workshop", "cores", "default_workers"]
