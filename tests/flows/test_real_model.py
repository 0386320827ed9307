"""The quickstart on the real model, cut short, and its checkpoint where this project is absent."""

import json
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from layerwright_process import ROOT, last_line, layerwright

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]

SHORTER = (
    "choose.strategies.0.window=124",
    "profile.profilers.0.window=124",
    "profile.rows=7",
    "profile.row_tokens=192",
    "profile.profilers.2.rows=1",
    "profile.profilers.2.row_tokens=192",
    "profile.profilers.2.prompts=1",
    "profile.profilers.2.prompt_tokens=192",
    "finetune.stages.0.steps=2",
    "finetune.row_tokens=128",
    "finetune.stages.0.warmup_steps=0",
    "evaluate.metrics.0.rows=2",
    "evaluate.metrics.0.row_tokens=192",
    "evaluate.metrics.1.rows=2",
    "evaluate.metrics.1.row_tokens=192",
    "evaluate.metrics.2.rows=1",
    "evaluate.metrics.2.row_tokens=192",
    "evaluate.metrics.3.prompts=2",
    "evaluate.metrics.3.prompt_tokens=[256]",
    "gate.rules.3.metric=recall.passkey.256",
    "evaluate.metrics.4.tokens=[64, 8192]",
    "evaluate.metrics.5.context_tokens=[64]",
    "evaluate.metrics.5.new_tokens=4",
    "evaluate.metrics.5.repeats=1",
)

SERVING = """
import importlib.util, json, sys
folder, packages = sys.argv[1:]
sys.path.append(packages)
assert importlib.util.find_spec("layerwright") is None
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
chat = [{"role": "user", "content": "Name three colours."}]
ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt",
                                    return_dict=True)["input_ids"]
ids = torch.cat([ids] * 20, dim=1)  # longer than sinks and window
kwargs = dict(max_new_tokens=12, do_sample=False)
cached = model.generate(ids, use_cache=True, **kwargs)
plain = model.generate(ids, use_cache=False, **kwargs)
print(json.dumps({"equal": cached.tolist() == plain.tolist(), "tokens": ids.shape[1],
                  "mixers": model.config.capabilities["mixers"],
                  "text": tokenizer.decode(cached[0, ids.shape[1]:])}))
"""

# what each layer becomes, edited by hand: every kind of strategy that a plan can mix
MIXED = """\
model_sha256: {sha256}
layers: 30
context_tokens: 8192
selector: by hand
items:
  - {{start: 0, stop: 4, strategy: keep}}
  - {{start: 4, stop: 5, strategy: gated_recurrence, params: {{gate: gsa, sinks: 4}}}}
  - {{start: 5, stop: 9, strategy: keep}}
  - {{start: 9, stop: 12, strategy: streaming, params: {{sinks: 4, window: 60}}}}
  - {{start: 12, stop: 14, strategy: linear}}
  - {{start: 14, stop: 15, strategy: remove}}
  - {{start: 15, stop: 16, strategy: keep}}
  - {{start: 16, stop: 17, strategy: drop_attention}}
  - {{start: 17, stop: 25, strategy: keep}}
  - {{start: 25, stop: 28, strategy: local, params: {{spans: 48, sinks: 4}}}}
  - {{start: 28, stop: 30, strategy: keep}}
"""
GREEDY = """
import importlib.util, json, sys
folder, packages = sys.argv[1:]
sys.path.append(packages)
assert importlib.util.find_spec("layerwright") is None
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
ids = tokenizer("The harbour master counted the ships that lay at anchor.", return_tensors="pt")
ids = ids.input_ids
cached = model.generate(ids, max_new_tokens=100, min_new_tokens=100, do_sample=False)
with torch.no_grad():  # all its uncached steps at once: a causal model's prefixes do not differ
    logits = model(cached, use_cache=False).logits[0, ids.shape[1] - 1 : -1]
logits[:, model.generation_config.eos_token_id] = -torch.inf  # as min_new_tokens has it
print(json.dumps({"equal": logits.argmax(-1).tolist() == cached[0, ids.shape[1]:].tolist(),
                  "capabilities": model.config.capabilities, "tokens": cached.shape[1]}))
"""


# the mixed plan is not trained, and one metric shows that its checkpoint is still a model
UNTRAINED = (
    "finetune=null",
    "evaluate.metrics=[{name: perplexity, texts: [docs-held-out], rows: 2, row_tokens: 192}]",
    "gate.rules=[{metric: perplexity.*, max: 1.05}]",
)


def sets(changes: tuple[str, ...]) -> list[str]:
    return [part for change in changes for part in ("--set", change)]


def run_quickstart(folder: Path, base: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """The recipe, shortened, on the model that it names; that it is fetched, `make demo` shows."""
    changes = sets((f"model.source=local:{base}", *SHORTER))
    recipe = str(ROOT / "recipes" / "quickstart.yaml")
    return layerwright("convert", recipe, *changes, *more, "--json", cwd=folder)


@pytest.fixture(scope="module")
def converted(tmp_path_factory, real_model) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("real")
    result = run_quickstart(folder, real_model.folder)
    assert result.returncode in (0, 3), result.stderr
    return folder, last_line(result)


def test_the_quickstart_converts_the_real_model(converted) -> None:
    _, summary = converted
    base, candidate = (summary["metrics"][arm] for arm in ("base", "candidate"))
    assert len(summary["plan"]) == 30
    assert sum(s == "streaming" for s in summary["plan"].values()) >= 13
    assert candidate["kv_bytes.8192"] <= 0.60 * base["kv_bytes.8192"]
    for text in ("docs-held-out", "boolq-passages"):
        ratio = candidate[f"perplexity.{text}"] / base[f"perplexity.{text}"]
        assert 0.9 < ratio < 1.2
        assert candidate[f"overlap.{text}"] == 0


def test_its_checkpoint_serves_without_this_project(converted, tmp_path: Path) -> None:
    _, summary = converted
    folder = summary["checkpoint"]["uri"].removeprefix("file://")
    script = tmp_path / "serve.py"
    script.write_text(SERVING)
    packages = sysconfig.get_path("purelib")
    # -I -S: no current folder, no PYTHONPATH, no editable install; only the installed packages
    command = [sys.executable, "-I", "-S", str(script), folder, packages]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.strip().splitlines()[-1])
    assert seen["equal"]
    assert seen["tokens"] > 256
    assert set(seen["mixers"]) == {"full", "streaming"}


@pytest.fixture(scope="module")
def mixed(converted, real_model) -> Path:
    """The checkpoint of a plan that mixes everything, from the same model and texts."""
    folder, _ = converted
    (run,) = (folder / ".layerwright" / "runs").iterdir()
    sha256 = re.search(r"model_sha256: (\w+)", (run / "plan.yaml").read_text())[1]
    plan = folder / "mixed.yaml"
    plan.write_text(MIXED.format(sha256=sha256))
    result = run_quickstart(folder, real_model.folder, "--plan", str(plan), *sets(UNTRAINED))
    assert result.returncode == 3, result.stderr  # nothing has healed what this costs
    found = last_line(result)
    assert set(found["cache_hits"]) >= {"fetch", "profile"}
    assert found["plan"]["13"] == "linear"
    assert found["metrics"]["candidate"]["perplexity.docs-held-out"] < 1000
    return Path(found["checkpoint"]["uri"].removeprefix("file://"))


def test_a_mixed_plan_generates_with_its_cache_what_it_generates_without(mixed, tmp_path) -> None:
    script = tmp_path / "greedy.py"
    script.write_text(GREEDY)
    command = [sys.executable, "-I", "-S", str(script), str(mixed), sysconfig.get_path("purelib")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.strip().splitlines()[-1])
    assert seen["equal"]
    assert seen["tokens"] > 100, "longer than every window"
    kinds = {"full", "gated_recurrence", "local", "none", "streaming"}
    assert set(seen["capabilities"]["mixers"]) == kinds
    assert seen["capabilities"]["feed_forwards"] == ["linear", "mlp", "none"]
    assert seen["capabilities"]["stateful"]
    assert not seen["capabilities"]["crop"]


def test_a_mixed_plan_is_exported_as_it_is_and_refused_as_a_stock_model(mixed, tmp_path) -> None:
    result = layerwright("export", str(mixed), "--to", "stock", "--out", "stock", cwd=tmp_path)
    assert result.returncode == 2
    for layer in ("layer 4", "layers 9-11", "layer 12", "layer 16", "layers 25-27"):
        assert layer in result.stderr
    assert not (tmp_path / "stock").exists()
    result = layerwright(
        "export", str(mixed), "--to", "transformers", "--out", "out", "--json", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "layerwright_modeling.py").is_file()
    result = layerwright("inspect", str(mixed), "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert last_line(result)["base_model_type"] == "llama"
