"""Check, then time kernels and whole models on a GPU, and compare them with other libraries.

    python -m benchmarks.gpu [--only operators|models] [--quick]

Needs one CUDA device with torch and triton (the whole models also transformers); ends with status 2
and says what is missing where there is none. Prints Markdown: the ceilings measured first, then one
line for each operator, shape and arm, then the models. FlexAttention and flash-linear-attention are
arms where they can be imported.
"""

import argparse
import sys
from importlib.util import find_spec
from itertools import chain

import torch

from layerwright.kernels.choice import triton_obstacle


def missing() -> str | None:
    """What this machine lacks, None if nothing."""
    if not torch.cuda.is_available():
        return f"no CUDA device (torch {torch.__version__})"
    return triton_obstacle("cuda")


def versions() -> str:
    import triton

    cards = torch.cuda.get_device_name(0)
    found = [f"torch {torch.__version__}", f"triton {triton.__version__}"]
    if find_spec("transformers"):
        import transformers

        found.append(f"transformers {transformers.__version__}")
    return f"{cards}; " + ", ".join(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("operators", "models"))
    parser.add_argument("--quick", action="store_true", help="the shortest shapes alone")
    options = parser.parse_args()
    if lacking := missing():
        print(f"benchmarks.gpu: not measured: {lacking}", file=sys.stderr)
        return 2
    print(f"{versions()}\n")
    if options.only != "models":
        from benchmarks.gpu_cases import attention, decode, mass, recurrence
        from benchmarks.gpu_timing import HEADER, ceilings, lines

        limits = ceilings()
        print(
            f"copy {limits.bandwidth / 1e12:.2f} TB/s, bf16 {limits.matrix_rate / 1e12:.0f}", end=""
        )
        print(" TFLOP/s, measured\n")
        print(HEADER)
        groups = (attention, recurrence, decode, mass)
        for case in chain.from_iterable(group("cuda", options.quick) for group in groups):
            for line in lines(case, limits):
                print(line, flush=True)
    if options.only != "operators":
        from benchmarks.gpu_models import table

        for line in table(options.quick):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
