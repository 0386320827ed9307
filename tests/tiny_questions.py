"""Rows in the formats of the zero-shot tasks, with words of no meaning, and lm-eval's tasks on
them.
"""

import json
import random
from importlib.resources import files
from pathlib import Path

WORDS = [
    "fog",
    "field",
    "lantern",
    "harbour",
    "green",
    "why",
    "slowly",
    "wool",
    "river",
    "copper",
    "sing",
    "eleven",
]


def rows(name: str, count: int = 12, seed: int = 0) -> list[dict]:
    return [_row(name, random.Random(f"{seed}/{name}/{i}")) for i in range(count)]


# lm-eval's own file of each format
FILES = {
    "arc": "arc/arc_easy.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "piqa": "piqa/piqa.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "winogrande": "winogrande/default.yaml",
    "sciq": "sciq/sciq.yaml",
    "boolq": "super_glue/boolq/default.yaml",
    "lambada": "lambada/lambada_openai.yaml",
}


def task_folder(folder: Path, name: str, lines: list[dict]) -> Path:
    """A folder with the rows and with lm-eval's task over them, which is called ``my_<name>``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    document = {
        "include": str(files("lm_eval") / "tasks" / FILES[name]),
        "task": f"my_{name}",
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {
            "data_files": {"validation": f"{name}.jsonl"},
            "cache_dir": str(folder.parent / "datasets"),
        },
        "training_split": None,
        "validation_split": "validation",
        "test_split": None,
        "fewshot_split": None,
    }
    (folder / f"my_{name}.yaml").write_text(json.dumps(document))  # JSON is YAML
    return folder


def _row(name: str, numbers: random.Random) -> dict:
    def said(fewest: int = 2, most: int = 9) -> str:
        return " ".join(numbers.choices(WORDS, k=numbers.randint(fewest, most)))

    def lettered(count: int) -> dict:
        return {"text": [said(1, 5) for _ in range(count)], "label": list("ABCDE"[:count])}

    match name:
        case "arc":
            count = numbers.choice([3, 4, 5])
            answer = numbers.choice("ABCDE"[:count])
            return {"question": said() + "?", "choices": lettered(count), "answerKey": answer}
        case "openbookqa":
            stem = said() + numbers.choice(["", " "])  # some end with a space, as in the real ones
            choices, answer = lettered(4), numbers.choice(["A", "B", "C", " D"])
            return {"question_stem": stem, "choices": choices, "answerKey": answer}
        case "hellaswag":
            marks = numbers.choice(["", "[header] {} [title] {} [step] ", "[substeps] "])
            return {
                "activity_label": said(1, 2),
                "ctx_a": marks.format(said(), said()) + said(),
                "ctx_b": numbers.choice(["", said(1, 3)]),
                "endings": [numbers.choice(["", "[step] "]) + said(1, 6) for _ in range(4)],
                "label": str(numbers.randrange(4)),
            }
        case "piqa":
            ends = [numbers.choice(["", " ", "é."]) for _ in range(2)]
            solutions = {f"sol{i + 1}": said() + end for i, end in enumerate(ends)}
            return {"goal": said(), **solutions, "label": numbers.randrange(2)}
        case "winogrande":
            names = {"option1": said(1, 1), "option2": said(1, 2)}
            sentence = f"{said()} _ {said()}{numbers.choice(['.', ', _ too.'])}"
            return {"sentence": sentence, **names, "answer": numbers.choice("12")}
        case "sciq":
            wrong = {f"distractor{i}": said(1, 3) for i in (1, 2, 3)}
            support = numbers.choice(["", "  "]) + said()
            question = {"support": support, "question": said() + "?"}
            return question | wrong | {"correct_answer": said(1, 3)}
        case "boolq":
            return {"passage": said(), "question": said(), "label": numbers.randrange(2)}
        case "lambada":
            return {"text": f"{said()} {numbers.choice(WORDS)}"}
    raise ValueError(name)
