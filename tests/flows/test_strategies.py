"""Every strategy from a recipe: fitted, resolved from the profile, or decided together."""

from pathlib import Path

from layerwright_process import last_line, layerwright
from report.page_reader import Page, check_form
from tiny_checkpoint import SENSITIVITY, write_tiny_inputs

from layerwright.flows.session.preflight import check_plan

SURVEY = """\
convert: {text: calibration, rows: 4, row_tokens: 100}
survey:
  metrics:
    - {name: perplexity, texts: [held-out], rows: 2, row_tokens: 128}
    - {name: kv_cache, tokens: [1024], prefill_tokens: 0}
    - {name: recall, prompts: 2, prompt_tokens: [400]}
  plans:
    dense:
      selector: {name: keep_all}
      strategies: [{name: streaming, window: 28}]
    one_map:
      selector: {name: listed, layers: [[1, 2]]}
      strategies: [{name: linear}]
    patched:
      selector: {name: listed, layers: [1, 2]}
      strategies: [{name: remove, patch: true}]
    no_attention:
      selector: {name: listed, layers: [1]}
      strategies: [{name: drop_attention}]
    recurrent:
      selector: {name: lightransfer, layers: 2}
      strategies: [{name: gated_recurrence, gate: gsa, window: 16, decay: statistics}]
    spans_of_heads:
      selector: {name: convert_all}
      strategies: [{name: local, spans: head, tau: 0.9, correction: block_mean, block: 4}]
    selected:
      selector: {name: convert_all}
      strategies: [{name: prefill_selection, full_layers: 2, window: 28}]
"""


def test_every_strategy_is_reached_from_a_recipe(tmp_path: Path) -> None:
    recipe = write_tiny_inputs(tmp_path)
    text = recipe.read_text()
    spans = "    - {name: covered_span, spans: [8, 16, 32], last_queries: 16}\n"
    recipe.write_text(text.partition("survey:\n")[0].replace(SENSITIVITY, spans) + SURVEY)
    result = layerwright("survey", "recipe.yaml", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found = last_line(result)["selectors"]
    dense = found["dense"]["metrics"]
    page = Page(Path(last_line(result)["report"].removeprefix("file://")).read_text())
    check_form(page)
    for name, row in found.items():
        assert row["metrics"]["recall.passkey.400"] is not None, name
        assert check_plan(Path(row["plan_file"])).summary() == row["plan"]
        assert row["command"] in page.text
        if name not in ("dense", "selected"):  # which reads a text in one pass as the base does
            assert row["metrics"]["perplexity"] != dense["perplexity"], name
    assert found["selected"]["metrics"]["perplexity"] == dense["perplexity"]
    assert (
        found["selected"]["metrics"]["key_log_prob.passkey.400"]
        != dense["key_log_prob.passkey.400"]
    )

    def kv_share(name: str) -> float:
        return found[name]["metrics"]["kv_bytes.1024"] / dense["kv_bytes.1024"]

    assert kv_share("one_map") == kv_share("patched") == 0.5
    assert kv_share("no_attention") == 0.75
    assert 0.5 < kv_share("selected") < 0.53
    assert kv_share("recurrent") < 0.6
    assert kv_share("spans_of_heads") < 1
    assert found["one_map"]["predicted_language_nats"] is None  # known of single layers alone
    assert list(found["one_map"]["plan"].values()) == ["keep", "linear", "linear", "keep"]


CHOICES = """\
convert: {text: calibration, rows: 4, row_tokens: 100}
survey:
  metrics:
    - {name: perplexity, texts: [calibration], rows: 1, row_tokens: 128}
  plans:
    half:
      selector: &half {name: milp, kv_bytes_ratio: 0.55, recall_weight: 0.0}
      strategies: &windows [{name: streaming, window: 8}]
    half_refined:
      selector:
        name: milp
        kv_bytes_ratio: 0.55
        recall_weight: 0.0
        refine: {evaluations: 40, rows: 1, prompts: 0}
      strategies: *windows
    one_by_one:
      selector: {name: sleb, layers: 2, rows: 1}
      strategies: *windows
    fewer_parameters:
      selector: {name: milp, parameters_ratio: 0.7}
      strategies: [{name: linear}, {name: remove}, {name: drop_attention}]
    learnt_scales:
      selector: {name: trsp, layers: 1}
      strategies: [{name: remove}]
"""


def test_plans_are_chosen_by_budget_and_tried_on_the_model(tmp_path: Path) -> None:
    recipe = write_tiny_inputs(tmp_path)
    text = recipe.read_text().partition("survey:\n")[0]
    measured = SENSITIVITY + "      runs: [2]\n    - {name: trsp_scale, steps_per_layer: 2}\n"
    recipe.write_text(text.replace(SENSITIVITY, measured) + CHOICES)
    result = layerwright("survey", "recipe.yaml", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found = last_line(result)["selectors"]
    perplexity = {name: row["metrics"]["perplexity"] for name, row in found.items()}
    # measured on the very tokens that plans are tried on: it cannot have become worse
    assert perplexity["half_refined"] <= perplexity["half"]
    assert list(found["one_by_one"]["plan"].values()).count("streaming") == 2
    kinds = set(found["fewer_parameters"]["plan"].values())
    assert kinds & {"linear", "remove", "drop_attention"}
    assert list(found["learnt_scales"]["plan"].values()).count("remove") == 1
    assert "choose: measured a plan" in result.stderr

    # 4 rows of 128 tokens hold all that maps would be fitted on: such damages say nothing
    tried = "survey.plans.fewer_parameters.selector.refine={evaluations: 40, rows: 4, prompts: 0}"
    result = layerwright("survey", "recipe.yaml", "--set", tried, cwd=tmp_path)
    assert result.returncode == 2
    assert "also used to try plans" in result.stderr
