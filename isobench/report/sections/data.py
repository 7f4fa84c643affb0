"""The section Data: links to the records, and the programs by hash."""

from dataclasses import dataclass
from typing import Final

from isobench.report.sections.lookup import Lookup
from isobench.report.sections.section import Section


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadView:
    """A program that was built for the run, and its hash."""

    program: str
    abi: str
    sha256: str


def payloads(lookup: Lookup) -> tuple[PayloadView, ...]:
    """Return the programs with their hashes, in the order of the summary."""
    return tuple(
        PayloadView(program=one.program, abi=one.abi, sha256=one.sha256)
        for one in lookup.run.payloads or ()
    )


DATA: Final = Section(anchor="data", title="Data", template="data.html.j2", build=payloads)
