"""Speed: every arm in turn, each repeat from a context of the same length."""

from tasks.evaluate.decode_speed import DecodeSpeed

METRIC = DecodeSpeed(context_tokens=(20, 60), new_tokens=3, repeats=3)


def test_arms_take_turns_with_the_same_work(make_arms, values, hybrid):
    models = {"base": hybrid(), "candidate": hybrid(streaming=(0, 1))}
    seen: list[tuple[str, int, int]] = []

    def watch(arm):
        def hook(module, arguments, options):
            cache = options["past_key_values"]
            seen.append((arm, options["input_ids"].shape[1], cache.seen_tokens))

        return hook

    for arm, model in models.items():
        model.model.register_forward_pre_hook(watch(arm), with_kwargs=True)
    found = values(METRIC, make_arms([METRIC], **models))
    rounds = [seen[i : i + 4] for i in range(0, len(seen), 4)]
    assert [r[0][0] for r in rounds[:4]] == ["base", "candidate", "candidate", "base"]
    for index, work in enumerate(rounds):
        context = 20 if index < 8 else 60  # one uncounted round and three repeats, two arms
        assert [(new, old) for _, new, old in work] == [
            (context, 0),
            *[(1, context + step) for step in range(3)],
        ]
    assert len(rounds) == 16
    assert {name for name, _ in found} == set(METRIC.names())
    for (name, _), measurement in found.items():
        assert 0 < measurement.low <= measurement.value <= measurement.high
        assert measurement.count == 3
        assert measurement.higher_is_better == name.startswith("decode_tokens_per_s")
    assert METRIC.estimate_tokens() == 4 * (23 + 63)
