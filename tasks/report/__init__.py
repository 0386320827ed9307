"""The report step: HTML pages of runs and surveys, Markdown tables, and the model card."""
