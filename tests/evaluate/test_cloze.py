"""The cloze metric: what it reports is what its passages say, for every arm."""

import pytest
import torch
from tiny_text import write_text

from layerwright.tasks.evaluate.metrics.cloze import Cloze
from layerwright.tasks.probes.cloze import cloze_passages
from layerwright.tasks.probes.recall import key_scores

NAMES = ["harbour", "lantern", "orchard", "meadow", "captain", "thunder"]
TEXT = " ".join(f"She saw the {NAMES[i % 6]} again as it was." for i in range(60))
CLOZE = Cloze(texts=("story",), passages=4, passage_tokens=300)


def test_values_are_those_of_the_passages(tmp_path, make_arms, values, hybrid):
    texts = {"story": write_text(tmp_path / "story", TEXT)}
    arms = make_arms([CLOZE], texts, candidate=hybrid(streaming=(0, 1)))
    found = values(CLOZE, arms)
    assert {name for name, _ in found} == set(CLOZE.names())
    passages = cloze_passages([TEXT], arms.texts.tokenizer, 4, 300, keep_out_tokens=8)
    for arm in ("base", "candidate"):
        scores = key_scores(arms.model(arm), passages)
        log_prob = found["cloze_log_prob.story", arm]
        assert log_prob.value == pytest.approx(sum(s.log_prob for s in scores) / 4)
        assert found["cloze.story", arm].value == sum(s.exact for s in scores) / 4
        assert found["cloze.story", arm].count == 4


def test_weights_that_are_no_numbers_give_no_figure(tmp_path, make_arms, values, hybrid):
    texts = {"story": write_text(tmp_path / "story", TEXT)}
    broken = hybrid()
    with torch.no_grad():
        broken.model.norm.weight[0] = float("nan")
    found = values(CLOZE, make_arms([CLOZE], texts, candidate=broken))
    assert found["cloze.story", "candidate"].value is None
    assert "4 of 4 passages" in found["cloze.story", "candidate"].detail
