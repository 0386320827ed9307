"""The quickstart on the real model, cut short, and its checkpoint where this project is absent."""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from layerwright_process import ROOT, last_line, layerwright

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]

SHORTER = (
    "profile.rows=4",
    "profile.row_tokens=384",
    "profile.profilers.2.rows=1",
    "profile.profilers.2.row_tokens=320",
    "profile.profilers.2.prompts=1",
    "finetune.steps=2",
    "finetune.row_tokens=128",
    "finetune.warmup_steps=0",
    "evaluate.metrics.0.rows=2",
    "evaluate.metrics.1.rows=2",
    "evaluate.metrics.2.prompts=2",
    "evaluate.metrics.4.context_tokens=[64]",
    "evaluate.metrics.4.new_tokens=4",
    "evaluate.metrics.4.repeats=1",
)

SERVING = """
import importlib.util, json, sys
folder, packages = sys.argv[1:]
sys.path.append(packages)
assert not any(importlib.util.find_spec(name) for name in ("tasks", "kernels", "flows"))
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


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("real")
    changes = [part for change in SHORTER for part in ("--set", change)]
    recipe = str(ROOT / "recipes" / "quickstart.yaml")
    result = layerwright("convert", recipe, *changes, "--json", cwd=folder, threads=None)
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
