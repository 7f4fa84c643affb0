"""Reports: one view of a run, rendered as a page, in a terminal and as Markdown."""
