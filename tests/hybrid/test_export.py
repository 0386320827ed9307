"""A checkpoint carries its own code and loads where the project is not."""

import ast
import json
import re
import subprocess
import sys
import sysconfig

import pytest
import torch
from tiny import LAYER_SPECS, tiny_hybrid, tiny_tokens
from tiny_families import CONFIGS, tiny_family, tiny_mixture

from layerwright.tasks.hybrid.export import flatten, write_code, write_config
from layerwright.tasks.hybrid.modeling import HybridForCausalLM

# Runs without the site module, so that no editable install puts the project on the path.
CLEAN_PROCESS = """
import importlib.util, sys
sys.path[:0] = sys.argv[3:]
assert importlib.util.find_spec("layerwright") is None
import torch
from transformers import AutoModelForCausalLM
folders, answers = (argument.split(":") for argument in sys.argv[1:3])
for folder, answer in zip(folders, answers, strict=True):
    for name in (folder, folder + "-again"):
        model = AutoModelForCausalLM.from_pretrained(name, trust_remote_code=True).eval()
        expected = torch.load(answer)
        with torch.no_grad():
            assert model(expected["ids"]).logits.equal(expected["logits"]), name
            generated = model.generate(expected["ids"], max_new_tokens=12, do_sample=False)
        assert generated.equal(expected["generated"]), name
        if name == folder:
            model.save_pretrained(folder + "-again")
assert "layerwright" not in sys.modules
print("same")
"""

FAST_PROCESS = """
import sys
sys.path[:0] = sys.argv[3:]
import torch
from transformers import AutoModelForCausalLM
folder, answers = sys.argv[1:3]
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
expected = torch.load(answers)
ids, steps = expected["ids"], expected["generated"][:, expected["ids"].shape[1]:]
with torch.no_grad():
    output = model(ids, use_cache=True)
    torch.testing.assert_close(output.logits, expected["logits"], rtol=1e-4, atol=1e-4)
    decoder = model.fixed_decoder(output.past_key_values, steps.shape[1])
    logits = output.logits[:, -1:]
    for t in range(steps.shape[1]):
        assert logits.argmax(-1).equal(steps[:, t : t + 1])
        logits = decoder.step(steps[:, t : t + 1])
loaded = [name for name in sys.modules if "layerwright" in name and name.endswith("fused")]
assert len(loaded) == 3, loaded
print("same")
"""


def write_checkpoint(folder, model, new_tokens):
    """Writes code, config and weights; returns the answers expected of them."""
    model.save_pretrained(folder)
    write_code(folder)
    write_config(folder, model.config)
    ids = tiny_tokens(2, 30)
    with torch.no_grad():
        return {
            "ids": ids,
            "logits": model(ids).logits,
            "generated": model.generate(ids, max_new_tokens=new_tokens, do_sample=False),
        }


def run_clean(program, *arguments, cwd, environment=None):
    """Run a program where neither this project nor its editable install can be found."""
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={"HF_HOME": str(cwd / "home"), "HF_HUB_OFFLINE": "1"} | (environment or {}),
        check=False,
    )


def test_every_kind_of_layer_reloads_in_a_clean_process(tmp_path):
    """A layer of every kind, and a model of each family: the same logits and tokens, as exported
    and as saved again by the serving host.
    """
    models = {family: tiny_family(family, LAYER_SPECS["streaming"]) for family in CONFIGS}
    models["llama"] = tiny_mixture("llama")
    folders = [tmp_path / family for family in CONFIGS]
    answers = [folder.with_suffix(".pt") for folder in folders]
    for family, folder, answer in zip(CONFIGS, folders, answers, strict=True):
        torch.save(write_checkpoint(folder, models[family], 12), answer)
    both = (":".join(map(str, paths)) for paths in (folders, answers))
    result = run_clean(CLEAN_PROCESS, *both, sysconfig.get_path("purelib"), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "same"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder with code, config and weights, and the answers expected of it."""
    folder = tmp_path_factory.mktemp("exported") / "tiny-hybrid"
    model = tiny_hybrid(LAYER_SPECS["streaming"], tie_word_embeddings=True)
    answers = write_checkpoint(folder, model, 12)
    torch.save(answers, folder.parent / "answers.pt")
    return folder


def test_clean_process_reload_without_triton_beside_a_package_kernels(checkpoint, tmp_path):
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("")
    (tmp_path / "kernels-0.0.1.dist-info").mkdir()
    (tmp_path / "kernels-0.0.1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: kernels\nVersion: 0.0.1\n"
    )
    paths = [str(tmp_path), sysconfig.get_path("purelib")]
    program = 'import sys\nsys.modules["triton"] = None\n' + CLEAN_PROCESS
    answers = checkpoint.parent / "answers.pt"
    result = run_clean(program, checkpoint, answers, *paths, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "same"


def test_the_fast_path_works_in_a_clean_process(tmp_path):
    """The shipped kernels, run by Triton's interpreter: a prompt, then steps over fixed tensors."""
    model = tiny_hybrid(LAYER_SPECS["gla_sinks_and_bias"], layers=(0,))
    model.set_layer_spec(1, LAYER_SPECS["streaming"])
    folder, answers = tmp_path / "fast", tmp_path / "answers.pt"
    torch.save(write_checkpoint(folder, model, 5), answers)
    site = sysconfig.get_path("purelib")
    fast = {"LAYERWRIGHT_KERNELS": "triton", "TRITON_INTERPRET": "1"}
    result = run_clean(FAST_PROCESS, folder, answers, site, cwd=tmp_path, environment=fast)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "same"


def test_reload_here(checkpoint):
    model = HybridForCausalLM.from_pretrained(checkpoint).eval()
    answers = torch.load(checkpoint.parent / "answers.pt")
    with torch.no_grad():
        assert model(answers["ids"]).logits.equal(answers["logits"])


def test_shipped_code_imports_nothing_of_ours(checkpoint):
    files = sorted(checkpoint.glob("*.py"))
    names = {path.stem for path in files}
    assert {"layerwright_modeling", "layerwright_configuration", "layerwright_cache"} <= names
    assert "layerwright_export" not in names
    assert "layerwright_families" not in names
    allowed = {"torch", "transformers", "huggingface_hub"} | sys.stdlib_module_names
    for path in files:
        source = path.read_text()
        tree = ast.parse(source)
        # Transformers refuses to load where a package is missing, unless its import is tried.
        tried = {x for node in tree.body if isinstance(node, ast.Try) for x in ast.walk(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                tops = {alias.name.split(".")[0] for alias in node.names}
                assert tops <= allowed | ({"triton"} if node in tried else set()), path
            elif isinstance(node, ast.ImportFrom) and node.level:
                assert node.module in names
                # Transformers finds siblings by this pattern.
                line = source.splitlines()[node.lineno - 1]
                assert re.match(rf"\s*from \.{node.module} import", line)
            elif isinstance(node, ast.ImportFrom):
                assert node.module.split(".")[0] in allowed, path


def test_same_bytes_each_time(checkpoint, tmp_path):
    config = HybridForCausalLM.from_pretrained(checkpoint).config
    write_config(tmp_path, config)
    assert all(path.parent == tmp_path for path in write_code(tmp_path))
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == sorted(p.name for p in checkpoint.iterdir() if p.name in written)
    for name in written:
        assert (tmp_path / name).read_bytes() == (checkpoint / name).read_bytes(), name


def test_config_names_the_code(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    assert config["architectures"] == ["HybridForCausalLM"]
    assert config["auto_map"]["AutoModelForCausalLM"] == "layerwright_modeling.HybridForCausalLM"
    assert config["capabilities"]["needs"]["trust_remote_code"] is True


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import layerwright.tasks.hybrid.cache\n", "from ... import name"),
        ("from layerwright.tasks.hybrid import cache\n", "import names, not modules"),
        ("from . import cache\n", "relative imports"),
        (
            "from layerwright.tasks.store.base import Store\n",
            "layerwright.tasks.store.base cannot ship",
        ),
    ],
)
def test_imports_that_cannot_ship_are_refused(source, message):
    with pytest.raises(ValueError, match=message):
        flatten("layerwright.tasks.hybrid.example", source)
