"""Records as fetching leaves them, for the metrics that ask them."""

import json
from pathlib import Path

from tasks.measure.records import RECORDS


def write_records(folder: Path, rows: list[dict], file: str = "asked.jsonl") -> Path:
    folder.mkdir(parents=True)
    lines = [json.dumps({"at": f"{file}:{n}", "row": row}) for n, row in enumerate(rows, 1)]
    (folder / RECORDS).write_text("\n".join(lines) + "\n")
    return folder
