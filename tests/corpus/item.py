"""One file of the corpus, and what a gate has to say of it."""

from dataclasses import dataclass, field

GOOD, BAD = "good", "bad"


@dataclass
class Item:
    """A model file in memory, not yet written.

    `file` is its path below the corpus; `kind` is its class, which many files may share; `why` is one line for a person; `expect` is
    a regular expression that a refusal must match, empty where the file is good; `beside` holds further files that it wants, by
    path below the corpus; `declared`: it is good once its other signature is declared.
    """

    file: str
    data: bytes
    kind: str
    why: str
    expect: str = ""
    beside: dict = field(default_factory=dict)
    declared: bool = False

    @property
    def verdict(self) -> str:
        return BAD if self.expect else GOOD

    def entry(self) -> dict:
        """As `corpus.json` lists it."""
        return {"file": self.file, "verdict": self.verdict, "class": self.kind, "why_one_line": self.why, "expect": self.expect, "declared": self.declared}
