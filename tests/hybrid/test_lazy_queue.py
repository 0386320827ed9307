"""The bounded queue against a sort."""

from hypothesis import given, settings
from hypothesis import strategies as st

from layerwright.tasks.hybrid.mixers.selective_cache import LazyQueue, SelectiveCacheLayer


@settings(deadline=None)
@given(
    ratios=st.lists(st.lists(st.sampled_from([0.1, 0.5, 0.9]), min_size=2, max_size=2), max_size=9),
    full_layers=st.integers(0, 10),
)
def test_the_queue_keeps_the_least_lazy(ratios, full_layers):
    names = [3 * i for i in range(len(ratios))]
    queue = LazyQueue({name: SelectiveCacheLayer(2, 6) for name in names}, full_layers)
    kept = [set(), set()]
    for name, row_ratios in zip(names, ratios, strict=True):
        leaving = queue.enter(name, row_ratios)
        for row in range(2):
            kept[row].add(name)
            kept[row] -= {layer for layer, rows in leaving.items() if row in rows}
            assert len(kept[row]) <= full_layers
    for row in range(2):
        ranked = sorted(zip((pair[row] for pair in ratios), names, strict=True))
        assert kept[row] == {name for _, name in ranked[:full_layers]}
    assert queue.kept == []
