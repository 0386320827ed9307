"""Rules that import-linter cannot state; its contracts are in pyproject.toml (`make lint`)."""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("flows", "infra", "kernels", "tasks")
SHIPPED = ("tasks/hybrid", "kernels")


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
    return found


def test_the_shipped_model_needs_torch_and_transformers_alone() -> None:
    # Transformers itself needs huggingface_hub, whose decorator its configs bear
    outside = {"torch", "triton", "transformers", "huggingface_hub", *sys.stdlib_module_names}
    ours = ("layerwright.tasks.hybrid", "layerwright.kernels")
    own_file = {"layerwright"}  # export.py asks it for the source files that it ships
    for path in sources(*SHIPPED):
        foreign = {
            module
            for module in imports(path) - own_file
            if module.split(".")[0] not in outside and not module.startswith(ours)
        }
        assert not foreign, path


def test_no_flow_bears_the_name_of_another_module() -> None:
    # Prefect loads flows by path with their folder first on sys.path
    assert {path.stem for path in (ROOT / "flows").glob("*.py")} & sys.stdlib_module_names == set()


def test_kernels_is_no_regular_package() -> None:
    # with an __init__.py a checkout on the path would hide Hugging Face's package of that name
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_no_module_is_above_400_lines() -> None:
    lengths = {
        p: len(p.read_text().splitlines()) for p in sources("flows", "infra", *SHIPPED, "tasks")
    }
    assert not {str(path): lines for path, lines in lengths.items() if lines > 400}
