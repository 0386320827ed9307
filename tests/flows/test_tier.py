"""A tier in a recipe, driven as a user drives it: all that it needs is measured and judged."""

import json
from pathlib import Path

import pytest
from facts import missing
from layerwright_process import last_line, layerwright
from report.page_reader import Page, check_form
from tiny_checkpoint import write_tiny_inputs

METRICS = """\
  metrics:
    - {name: perplexity, texts: [held-out, calibration], rows: 24, row_tokens: 48}
    - {name: recall, probes: [passkey, variable_tracking], prompt_tokens: [420, 480], prompts: 4,
       depths: 2}
    - {name: prompts, text: mine, match: agreement, max_new_tokens: 24}
    - {name: kv_cache, tokens: [1024]}
    - {name: decode_speed, context_tokens: [64], new_tokens: 4}
gate: {tier: standard}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A recipe that keeps every layer, and prompts of the user's own."""
    folder = tmp_path_factory.mktemp("tier")
    path = write_tiny_inputs(folder)
    text = path.read_text()
    for start, end, instead in (
        ("  metrics:", "registry:", METRICS),
        ("finetune:", "evaluate:", ""),
        ("  selector: {name: milp", "evaluate:", "  selector: {name: keep_all}\n"),
    ):
        before, rest = text.split(start, 1)
        text = before + instead + end + rest.split(end, 1)[1]
    mine = f'data:\n  mine: {{source: "local:{folder}/mine.jsonl", form: items}}\n'
    path.write_text(text.replace("data:\n", mine, 1))
    rows = [{"prompt": f"Item {n * n} of the harbour"} for n in range(24)]
    (folder / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_a_tier_reaches_a_decision_on_everything_that_it_needs(folder: Path) -> None:
    result = layerwright("convert", "recipe.yaml", "--json", cwd=folder)
    assert result.returncode in (0, 3), result.stderr
    summary = last_line(result)
    run = folder / ".layerwright" / "runs" / summary["run_id"]
    decision = json.loads((run / "decision.json").read_text())
    assert decision["tier"] == "standard"
    judged = {check["metric"]: check for check in decision["checks"]}
    # the candidate is the base: it writes the same, and a random base recalls nothing to lose
    assert judged["generation.mine"]["passed"]
    assert judged["generation.mine"]["items"] == 24
    assert judged["length_ratio.mine"]["passed"]
    assert judged["perplexity.calibration"]["passed"]
    for name in ("passkey.420", "passkey.480", "variable_tracking.420", "variable_tracking.480"):
        assert not missing(judged[f"recall.{name}"]["reason"], "0", "ratio")
    assert summary["decision"] == "rejected"
    page = Page(Path(summary["report"].removeprefix("file://")).read_text())
    check_form(page)
    assert page.draws("variable_tracking, candidate")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": 3}', "mine.jsonl:25: prompt: "),
        ('{"ask": "a"}', "mine.jsonl:25: prompt: "),
        ('{"prompt": "a"', "line 25"),
    ],
)
def test_a_wrong_line_of_the_users_prompts_is_told_before_any_work(folder, line, said) -> None:
    broken = folder / "broken.jsonl"
    broken.write_text((folder / "mine.jsonl").read_text() + "\n" + line)
    target = folder / "mine.jsonl"
    kept = target.read_text()
    target.write_text(broken.read_text())
    try:
        result = layerwright("convert", "recipe.yaml", "--json", "--home", "other", cwd=folder)
    finally:
        target.write_text(kept)
    assert result.returncode == 2, result.stderr
    assert said in result.stderr
    assert "profile" not in result.stderr
