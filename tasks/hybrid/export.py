"""Writes a checkpoint's own code and config, so that it loads without Layerwright installed.

Transformers ships only flat sibling modules with a checkpoint. The modules that inference needs are
found by following the imports of modeling.py, and they become siblings with relative imports.
"""

import ast
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from transformers import PretrainedConfig

from layerwright import source_file
from layerwright.tasks.hybrid.configuration import HybridConfig
from layerwright.tasks.hybrid.families import from_base_config

ENTRY = "layerwright.tasks.hybrid.modeling"
PACKAGES = {"layerwright.tasks.hybrid": "layerwright", "layerwright.kernels": "layerwright"}
OURS = ("layerwright", "tests")
AUTO_MAP = {
    "AutoConfig": "layerwright_configuration.HybridConfig",
    "AutoModel": "layerwright_modeling.HybridModel",
    "AutoModelForCausalLM": "layerwright_modeling.HybridForCausalLM",
}
HEADER = "# Part of a checkpoint converted by Layerwright; exported from {module}.\n"


def write_code(folder: str | Path) -> list[Path]:
    """Writes the model's code into a checkpoint folder as flat modules, always with the same bytes.

    Returns:
        The files written, sorted.

    Raises:
        ValueError: a module to ship imports a module of this project that cannot be shipped.
    """
    sources = {flat_name(module): source for module, source in shipped_sources().items()}
    return [_write(folder, f"{name}.py", source) for name, source in sorted(sources.items())]


def write_config(folder: str | Path, config: HybridConfig) -> Path:
    """Writes config.json, which names the shipped code, always with the same bytes."""
    fields = config.to_diff_dict()
    fields |= {"architectures": ["HybridForCausalLM"], "auto_map": AUTO_MAP}
    return _write(folder, "config.json", json.dumps(fields, indent=2, sort_keys=True) + "\n")


def _write(folder: str | Path, name: str, text: str) -> Path:
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_hybrid(
    folder: str | Path, base: PretrainedConfig, layer_specs: list[dict] | None = None
) -> HybridConfig:
    """Writes the code and the config of a base model with the given layer specs, without weights.

    Raises:
        ValueError: the base model or a spec is not supported.
    """
    config = from_base_config(base, layer_specs)
    write_code(folder)
    write_config(folder, config)
    return config


@cache
def shipped_sources() -> Mapping[str, str]:
    """The flattened source of every module that inference needs, by module name."""
    sources: dict[str, str] = {}
    pending = [ENTRY]
    while pending:
        module = pending.pop()
        if module in sources:
            continue
        path = source_file(module)
        if path is None:
            raise ValueError(f"{module} has no source file to ship with a checkpoint")
        sources[module], imported = flatten(module, path.read_text(encoding="utf-8"))
        pending += imported
    return sources


def flat_name(module: str) -> str:
    """Name of a shipped module: layerwright.tasks.hybrid.mixers.full -> layerwright_mixers_full."""
    for package, prefix in PACKAGES.items():
        if module.startswith(package + "."):
            return prefix + "_" + module.removeprefix(package + ".").replace(".", "_")
    raise ValueError(
        f"{module} cannot ship with a checkpoint: only modules of {sorted(PACKAGES)} can"
    )


def flatten(module: str, source: str) -> tuple[str, list[str]]:
    """A module's source with this project's imports made relative, and the names of those imports.

    Raises:
        ValueError: such an import is not of the form `from package.module import name`.
    """
    lines = source.splitlines(keepends=True)
    imported = []
    for node in ast.walk(ast.parse(source)):
        where = f"{module}:{getattr(node, 'lineno', 0)}: shipped code"
        if isinstance(node, ast.Import):
            if any(alias.name.split(".")[0] in OURS for alias in node.names):
                raise ValueError(f"{where} must use 'from ... import name'")
        elif isinstance(node, ast.ImportFrom):
            if node.level or node.module is None:
                raise ValueError(f"{where} must not use relative imports")
            if node.module.split(".")[0] not in OURS:
                continue
            if any(source_file(f"{node.module}.{alias.name}") is not None for alias in node.names):
                raise ValueError(f"{where} must import names, not modules")
            imported.append(node.module)
            names = ", ".join(ast.unparse(alias) for alias in node.names)
            indent = " " * node.col_offset
            lines[node.lineno - 1] = f"{indent}from .{flat_name(node.module)} import {names}\n"
            rest = slice(node.lineno, node.end_lineno)
            lines[rest] = [""] * len(lines[rest])
    return HEADER.format(module=module) + "".join(lines), imported
