"""What a reader wants to know of prepared data before a run: what was dropped, lengths, tokens, scripts, copies."""

from input_pipeline.inspection.findings import Report
from input_pipeline.inspection.looking import inspect, looking_by
from input_pipeline.inspection.showing import summary, text

__all__ = ['Report', 'inspect', 'looking_by', 'summary', 'text']
