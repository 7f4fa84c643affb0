"""What shows a hypervisor from inside, on x86: the signature that CPUID reports. In a sandbox that
answers in place of the kernel it is that of the host's own hypervisor.
"""

from typing import Final

from isobench.model import Expectation, Relation
from isobench.targets.shared import sentry

_HINT: Final = (
    "a hypervisor whose signature is hidden cannot be distinguished from QEMU's translation:"
    " let it show its signature (libvirt: remove <kvm><hidden state='on'/></kvm>)"
)

SIGNED: Final = (
    # QEMU's translator can leave out its own signature (tcg-cpuid=off), and then shows none.
    Expectation(key="cpu.hypervisor", relation=Relation.OTHER_THAN, value="", hint=_HINT),
    # A machine that QEMU translates is emulation, however it was started.
    Expectation(key="cpu.hypervisor", relation=Relation.OTHER_THAN, value="TCGTCGTCGTCG"),
    Expectation(key="kernel.version", relation=Relation.OTHER_THAN, value=sentry.BUILD),
)
"""The expectations of a machine on a hypervisor that is not QEMU's translator."""
