"""What a timing is of, as it stands in a figure's name: prompt, new tokens, rows at once.

prefill_ms.8192             a prompt of 8,192 tokens, one row
decode_tokens_per_s.8192.b4 four rows of it at once
latency_p50_ms.8192+32.b4   and 32 new tokens behind each
"""

from __future__ import annotations

import re
from typing import NamedTuple

SUBJECT = re.compile(r"([1-9]\d*)(?:\+([1-9]\d*))?(?:\.b([1-9]\d*))?", re.ASCII)


class Workload(NamedTuple):
    """``new_tokens`` is 0 where a figure does not depend on it."""

    prompt_tokens: int
    new_tokens: int = 0
    batch: int = 1

    def __str__(self) -> str:
        new = f"+{self.new_tokens}" if self.new_tokens else ""
        return f"{self.prompt_tokens}{new}" + (f".b{self.batch}" if self.batch > 1 else "")

    @classmethod
    def parse(cls, subject: str) -> Workload | None:
        """What follows a family's name and its dot; None where that is no workload."""
        found = SUBJECT.fullmatch(subject)
        return found and cls(int(found[1]), int(found[2] or 0), int(found[3] or 1))
