"""A run, or several, as one page of HTML that opens anywhere: curves, figures, data, predictions, attention."""

from bert_jax.report.page import report

__all__ = ['report']
