"""The standard evaluation of one's own network and photos: a request and a time budget become a plan."""

from splitleak.experiments.tools.audit.plan import Audit, AuditRequest

__all__ = ["Audit", "AuditRequest"]
