"""Reports. The view of a run is built once, and rendered as page, terminal output and Markdown."""
