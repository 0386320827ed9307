"""Profile, convert and evaluate a random base under a memory bound below the size of its weights.

    python -m benchmarks.block_major [--hidden 1024] [--layers 24] [--share 0.4] [--folder DIR]

The base (Llama, bf16) is written shard by shard and never whole in memory. Each arm is a process of
its own: with ``compute.memory`` at ``--budget`` of the weights' bytes, or without a bound
(``--in-memory``, for models that fit). ``--share`` limits the bounded arm's private memory to that
share of the weights' bytes on top of what it takes before it loads anything: where it needs more,
it fails. Peaks are given on top of that too. ``--cgroup`` holds the bounded arm's whole process,
interpreter, libraries and page cache included, in a memory control group of that share of the
weights' bytes instead (version 1 or 2; PARENT is a group in which others may be made, such as
/sys/fs/cgroup/memory). The arms must find the same numbers.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.common import machine, memory_bytes, watched
from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.plan import ConversionPlan, PlanItem
from layerwright.tasks.contracts.references import Calibration, ModelRef, TextRef
from layerwright.tasks.convert.checkpoint import convert_model
from layerwright.tasks.evaluate.models import evaluate_models
from layerwright.tasks.fetch.model import stored_model
from layerwright.tasks.models.weight_files import write_index
from layerwright.tasks.profile.model import profile_model
from layerwright.tasks.recipe.evaluate import EvaluateOptions
from layerwright.tasks.recipe.profile import ProfileOptions
from layerwright.tasks.store.local import LocalStore
from layerwright.tasks.strategies.streaming import Streaming

STREAMING = {"sinks": 4, "window": 60}
ROW_TOKENS = 512


def write_base(folder: Path, config: LlamaConfig) -> int:
    """A random base with a byte tokenizer, one shard a layer; returns the bytes of its weights."""
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({byte: i for i, byte in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in LlamaForCausalLM(config).named_parameters()}
    shards: dict[str, list[str]] = {}
    for name in shapes:
        part = name.split(".")[2] if name.startswith("model.layers.") else name
        shards.setdefault(f"model-{part}.safetensors", []).append(name)
    generator, total = torch.Generator().manual_seed(0), 0
    for file, names in shards.items():
        tensors = {}
        for name in names:
            tensors[name] = torch.ones(shapes[name], dtype=torch.bfloat16)
            if len(shapes[name]) > 1:
                tensors[name].normal_(0, 0.02, generator=generator)
        save_file(tensors, folder / file, metadata={"format": "pt"})
        total += sum(tensor.nbytes for tensor in tensors.values())
    where = {name: file for file, names in shards.items() for name in names}
    write_index(folder, where, total)
    return total


def write_text(folder: Path) -> Path:
    folder.mkdir()
    words = " ".join(f"Item {i * i % 9973} of list {i} was counted." for i in range(2000))
    (folder / "documents.jsonl").write_text(json.dumps({"text": words}) + "\n")
    return folder


@contextmanager
def control_group(parent: Path, limit: int) -> Iterator[tuple[Path, dict[str, int]]]:
    """A group with ``limit`` bytes, and what it held at most, told behind the block."""
    group = parent / f"block-major-{os.getpid()}"
    told: dict[str, int] = {}
    group.mkdir()
    try:
        second = (group / "memory.max").exists()
        (group / ("memory.max" if second else "memory.limit_in_bytes")).write_text(str(limit))
        yield group, told
        peak = group / ("memory.peak" if second else "memory.max_usage_in_bytes")
        told |= {"group_limit_bytes": limit, "group_peak_bytes": int(peak.read_text())}
    finally:
        group.rmdir()


def run_arm(folder: Path, rows: int, sensitivity: bool, share: float | None, budget: int) -> None:
    """All steps in this process, with no bound where ``budget`` is 0; prints a line of JSON."""
    store = LocalStore(folder / "store")
    base = ModelRef.model_validate_json((folder / "base.json").read_text())
    text = TextRef.model_validate_json((folder / "text.json").read_text())
    work = folder / f"work-{budget}"

    def context(step: str) -> Context:
        return Context(store=store, workdir=work / step, memory_bytes=budget or None, log=print)

    before = memory_bytes("RssAnon")
    if share is not None:
        limit = memory_bytes("VmData") + int(share * base.bytes)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    profilers = [Spec(name="laziness", window=60), Spec(name="block_influence")]
    if rows * (ROW_TOKENS - 1) > 2 * base.hidden_size and rows >= 4:
        profilers.append(Spec(name="linearity"))
    if sensitivity:
        asked = {"rows": 1, "probes": ["passkey"], "prompts": 1, "prompt_tokens": 600}
        profilers.append(Spec(name="sensitivity", **asked))
    figures: dict[str, float] = {}

    @contextmanager
    def timed(step: str) -> Iterator[None]:
        """Seconds and peak private memory, over ``before``, of the block."""
        with watched(lambda: memory_bytes("RssAnon")) as told:
            yield
        figures[f"{step}_seconds"] = round(told["seconds"], 1)
        figures[f"{step}_peak_bytes"] = told["peak"] - before

    with timed("profile"):
        sizes = {"rows": rows, "row_tokens": ROW_TOKENS}
        options = ProfileOptions(text="text", profilers=tuple(profilers), **sizes)
        strategies = (Streaming(**STREAMING),)
        profile = profile_model(base, text, options, strategies, context("profile"))
    kinds = [("streaming", STREAMING), ("keep", {})] * base.layers
    plan = ConversionPlan(
        model_sha256=base.sha256,
        layers=base.layers,
        context_tokens=8192,
        selector="every other",
        items=tuple(
            PlanItem(start=layer, stop=layer + 1, strategy=kind, params=params)
            for layer, (kind, params) in enumerate(kinds[: base.layers])
        ),
    )
    rows_of = Calibration(text=text, rows=rows, row_tokens=ROW_TOKENS)
    with timed("convert"):
        checkpoint = convert_model(base, plan, rows_of, context("convert"))
    metrics = tuple(
        Spec(name=name, texts=["text"], rows=2, row_tokens=ROW_TOKENS)
        for name in ("perplexity", "divergence")
    )
    wanted, arms = EvaluateOptions(metrics=metrics), (base, checkpoint, None, None)
    with timed("evaluate"):
        report = evaluate_models(*arms, {"text": text}, wanted, context("evaluate"))
    results = {
        "profile": [layer.model_dump(mode="json") for layer in profile.layers],
        "checkpoint": checkpoint.sha256,
        "evaluation": [m.model_dump(mode="json") for m in report.measurements],
    }
    shutil.rmtree(work)
    print(json.dumps({"figures": figures, "before_bytes": before, "results": results}))


def prepare(folder: Path, options: argparse.Namespace) -> ModelRef:
    """Base and text in a store, once for all arms and attempts."""
    store, known = LocalStore(folder / "store"), folder / "base.json"
    if known.is_file():
        return ModelRef(**json.loads(known.read_text()))
    config = LlamaConfig(
        hidden_size=options.hidden,
        intermediate_size=options.intermediate,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        num_key_value_heads=options.kv_heads,
        vocab_size=options.vocabulary,
        tie_word_embeddings=not options.untied,
        max_position_embeddings=8192,
        dtype=torch.bfloat16,
        bos_token_id=None,
        eos_token_id=None,
    )
    shutil.rmtree(folder / "base", ignore_errors=True)  # of an attempt that was killed
    weights = write_base(folder / "base", config)
    base = stored_model(store.put_tree(folder / "base").sha256, store, "random")
    base = base.model_copy(update={"bytes": weights})
    tree = store.put_tree(write_text(folder / "text"))
    text = TextRef(**tree.model_dump(), source="made", documents=1, characters=0)
    (folder / "text.json").write_text(text.model_dump_json())
    known.write_text(base.model_dump_json())
    return base


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All arms, each in a process of its own."""
    base = prepare(folder, options)
    told: dict[str, Any] = {"weights_bytes": base.bytes, "budget_bytes": None, "arms": {}}
    told["budget_bytes"] = int(options.budget * base.bytes)
    arms = {"bounded": [f"--arm={told['budget_bytes']}"]}
    if options.share and not options.cgroup:
        arms["bounded"].append(f"--share={options.share}")
    if options.in_memory:
        arms["in memory"] = ["--arm=0"]
    if options.sensitivity:
        arms = {name: [*arguments, "--sensitivity"] for name, arguments in arms.items()}
    results = []
    for name, arguments in arms.items():
        command = [sys.executable, "-m", "benchmarks.block_major", *arguments]
        command += [f"--folder={folder}", f"--rows={options.rows}", f"--threads={options.threads}"]
        with ExitStack() as stack:
            memory: dict[str, int] = {}
            if options.cgroup and name == "bounded":
                limit = int(options.share * base.bytes)
                group, memory = stack.enter_context(control_group(options.cgroup, limit))
                # a shell that joins the group, and becomes the arm
                command = ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh", *command]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name}: exit status {done.returncode}")
        found = json.loads(done.stdout.splitlines()[-1])
        found["figures"] |= memory
        results.append(found.pop("results"))
        peaks = {k: v for k, v in found["figures"].items() if k.endswith("_peak_bytes")}
        shares = {f"{k[:-6]}_of_weights": round(v / base.bytes, 3) for k, v in peaks.items()}
        told["arms"][name] = found["figures"] | shares | {"before_bytes": found["before_bytes"]}
    if any(result != results[0] for result in results):
        raise SystemExit("the arms found different numbers")
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (
        ("hidden", 1024), ("intermediate", 4096), ("layers", 24), ("heads", 16), ("kv-heads", 4),
        ("vocabulary", 32000), ("rows", 2), ("threads", torch.get_num_threads()),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--budget", type=float, default=0.3, help="share of the weights' bytes")
    parser.add_argument("--share", type=float, help="limit on private memory, of the weights")
    parser.add_argument("--cgroup", type=Path, help="memory control group to make one in")
    for flag in ("untied", "in-memory", "sensitivity"):
        parser.add_argument(f"--{flag}", action="store_true")
    parser.add_argument("--folder", type=Path, help="kept; a killed run goes on in it")
    parser.add_argument("--arm", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cgroup and not options.share:
        parser.error("--cgroup needs --share: how much of the weights' bytes the group may hold")
    torch.set_num_threads(options.threads)
    if options.arm is not None:
        run_arm(options.folder, options.rows, options.sensitivity, options.share, options.arm)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        told = measure(folder, options)
    told["machine"] = machine()
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
