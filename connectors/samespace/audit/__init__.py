"""What a collection really holds: whose vectors they are, and what sets them right."""

from samespace.audit.auditing import AuditJob as AuditJob
from samespace.audit.auditing import audit as audit
from samespace.audit.checking import CheckReport as CheckReport
from samespace.audit.checking import check as check
from samespace.audit.repairing import RepairJob as RepairJob
from samespace.audit.repairing import RepairReport as RepairReport
from samespace.audit.repairing import repair as repair
from samespace.audit.report import AuditReport as AuditReport
