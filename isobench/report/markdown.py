"""Renders the view of a run as Markdown: for summary.md, summaries of CI jobs and comments."""

from isobench.report.markup import escaped, items
from isobench.report.sections.section import Report


def markdown(view: Report) -> str:
    """Return the headline, the facts that identify the run, and the sections with Markdown."""
    parts = [f"# {escaped(view.headline)}"]
    if view.remarks:
        parts.append(escaped(view.remarks))
    parts += [f"> **{escaped(one.title)}.** {escaped(one.text)}" for one in view.banners]
    parts.append(items(f"{escaped(f.label)}: {escaped(f.value.shown)}" for f in view.run))
    for part in view.parts:
        parts += part.markdown()
    return "\n\n".join(parts) + "\n"
