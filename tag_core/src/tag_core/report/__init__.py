"""What a run came to, to look at: ``report.html`` and annotated pictures."""

from __future__ import annotations

from tag_core.report.html import write_report
from tag_core.report.visualize import draw_records

__all__ = ["draw_records", "write_report"]
