"""How a command line ended."""

from dataclasses import dataclass


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """Everything that was said, in one line."""
        return " ".join((self.out + " " + self.err).split())
