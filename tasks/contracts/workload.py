"""The workload that a timing was measured with, as part of a metric's name.

prefill_ms.8192             a prompt of 8,192 tokens, batch 1
decode_tokens_per_s.8192.b4 the same prompt length, batch 4
latency_p50_ms.8192+32.b4   the same, and 32 new tokens per row
"""

import re
from typing import NamedTuple, Self

SUBJECT = re.compile(r"([1-9]\d*)(?:\+([1-9]\d*))?(?:\.b([1-9]\d*))?", re.ASCII)


class Workload(NamedTuple):
    """``new_tokens`` is 0 for metrics that do not depend on it."""

    prompt_tokens: int
    new_tokens: int = 0
    batch: int = 1

    def __str__(self) -> str:
        new = f"+{self.new_tokens}" if self.new_tokens else ""
        return f"{self.prompt_tokens}{new}" + (f".b{self.batch}" if self.batch > 1 else "")

    @classmethod
    def parse(cls, subject: str) -> Self | None:
        """Read the part of a metric's name after its family and dot; None if it is no workload."""
        match = SUBJECT.fullmatch(subject)
        return match and cls(int(match[1]), int(match[2] or 0), int(match[3] or 1))
