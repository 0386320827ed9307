"""Broken rows of texts and tasks: told with file and line, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import FUZZ, holds, mutated
from tiny_questions import ROWS

from tasks.context import Context
from tasks.contracts import Spec
from tasks.evaluate.base import Metric
from tasks.evaluate.metrics import check_items
from tasks.fetch.text import fetch_text
from tasks.recipe import TextSource
from tasks.registry import build
from tasks.store import LocalStore
