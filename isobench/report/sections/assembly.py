"""The whole view of a run, put together from its parts."""

from collections.abc import Mapping
from typing import Any

from isobench.model import ClaimStatus
from isobench.report.sections import account, documents, evidence, ratios
from isobench.report.sections.claims import claim_counts, claim_views
from isobench.report.sections.gaps import doubt_views, gap_views
from isobench.report.sections.marks import CLAIM_MARKS
from isobench.report.sections.run import read
from isobench.report.sections.shapes import Report
from isobench.report.sections.startup import start_up
from isobench.report.sections.values import clean
from isobench.report.sections.variations import variation_views


def build(summary: Mapping[str, Any]) -> Report:
    """Return what a report of this summary shows. Absent fields leave their part of it out."""
    run = read(summary)
    claims = claim_views(run)
    untested = CLAIM_MARKS[ClaimStatus.UNTESTED]
    return Report(
        headline=account.headline(run),
        remarks=account.remarks(run),
        id=clean(run.raw.get("id")) or "unnamed",
        run=account.run_line(run),
        banners=tuple(account.banners(run)),
        columns=documents.columns(run),
        matrix=ratios.matrix(run),
        panels=ratios.panels(run),
        startup=start_up(run),
        proofs=tuple(evidence.proofs(run)),
        limits=tuple(evidence.limits(run)),
        parity=tuple(evidence.parity(run)),
        variations=variation_views(run),
        claims=tuple(claim for claim in claims if claim.mark != untested),
        untested=tuple(claim for claim in claims if claim.mark == untested),
        claim_counts=claim_counts(claims),
        gaps=gap_views(run),
        doubts=doubt_views(run),
        noise=account.noise(run),
        environment=account.environment(run),
        details=account.details(run),
        method=account.method(run),
        payloads=account.payloads(run),
        records=account.records(run),
    )
