"""util-linux's `unshare` as a target: user, PID and network namespaces, the host's files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from isobench.model import Expectation, Relation, Technology
from isobench.model.units import TargetName
from isobench.targets.authoring import PrefixTarget


@dataclass(frozen=True, kw_only=True)
class UnshareTarget(PrefixTarget):
    """A process in namespaces of its own."""

    name = TargetName("unshare")
    technology = Technology.SANDBOX
    install = "sudo apt-get install util-linux"
    repair = "allow user namespaces: sudo sysctl kernel.unprivileged_userns_clone=1"

    pretend: str = ""
    """An option: a fact that is expected to be unlike the host's, kept or not. Shows what
    "unproven" means.
    """

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """The host's kernel, and no network of the host's."""
        unlike = ["ns.user", "ns.pid", "ns.net", *([self.pretend] if self.pretend else [])]
        return (
            Expectation(key="kernel.boot_id", relation=Relation.SAME_AS_HOST),
            *(Expectation(key=key, relation=Relation.UNLIKE_HOST) for key in unlike),
        )

    @property
    def starts(self) -> Mapping[str, str]:
        """What the start-up figures span."""
        return {
            "cold": "unshare is executed on a copy of the payload made just before",
            "warm": "unshare is executed again: it keeps no stopped instance",
            "exec": "isobench's agent, in open namespaces, forks and executes the payload",
        }

    def words(self, root: Path, scratch: Path) -> Sequence[str]:
        """The first process of the namespace dies with unshare, and all others with it."""
        del root, scratch  # the host's files are seen as they are
        # fmt: off
        return [
            "unshare",
            "--user", "--map-root-user", "--net",
            "--pid", "--fork", "--kill-child",
            "--",
        ]
        # fmt: on
