"""The mixers by kind. A new mixer is one file here and one line in the table."""

from layerwright.tasks.hybrid.mixers.attention import AttentionMixer
from layerwright.tasks.hybrid.mixers.full import FullAttention
from layerwright.tasks.hybrid.mixers.gated_recurrence import GatedRecurrence
from layerwright.tasks.hybrid.mixers.local import LocalAttention
from layerwright.tasks.hybrid.mixers.none import NoMixer
from layerwright.tasks.hybrid.mixers.prefill_selection import PrefillSelection
from layerwright.tasks.hybrid.mixers.streaming import StreamingAttention
from layerwright.tasks.hybrid.mixers.window import WindowAttention

MIXERS: dict[str, type[AttentionMixer]] = {
    mixer.kind: mixer
    for mixer in (
        FullAttention,
        GatedRecurrence,
        LocalAttention,
        NoMixer,
        PrefillSelection,
        StreamingAttention,
        WindowAttention,
    )
}
