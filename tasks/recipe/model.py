"""The recipe's `model` block."""

from typing import Literal

from pydantic import Field

from layerwright.tasks.contracts.base import Contract


class ModelSource(Contract):
    """The source of the base model.

    ``source``: ``hf:owner/name@revision``, ``pypi:dist==version[/path]``, ``s3://bucket/prefix``
    or a local folder.
    """

    source: str = Field(min_length=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
