"""What the stand-in hub has: data sets shaped like the published ones, and tiny models.

`PUBLISHED` is the one table of the names, configurations, splits, columns and labels that it
imitates, with where each is known from. The rows are invented here; no published row is used.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import yaml
from pyarrow import parquet
from standin_hub import Repository

EMBEDDED = Path(__file__).resolve().parents[1] / "lozo_bench/models/embedded"
PARQUET_BRANCH = "refs/convert/parquet"  # the hub's own conversion of every public data set

# Loading scripts that were in github.com/huggingface/datasets until 2022 and made these data sets;
# the hub's Parquet files were converted from them.
_SCRIPT = "github.com/huggingface/datasets, datasets/{0}/{0}.py; "
_GLUE = _SCRIPT.format("glue") + "card of nyu-mll/glue"
_LIST = (
    "not among the data sets with a script that datasets 5.0.0 refuses, as listed in "
    "github.com/EleutherAI/lm-evaluation-harness/issues/3171"
)
_SUPER = _SCRIPT.format("super_glue") + (
    f"a maintainer of datasets converted it to Parquet (its discussion 16); {_LIST}"
)
_SETFIT = (
    "its files on the hub are JSON lines, its card has no list of them; programs that read it take "
    "text and label; assumed: the spelling of label_text, which SetFit's other data sets have, too"
)

_STRING, _INT32, _INT64 = "string", "int32", "int64"
_NLI = ["entailment", "neutral", "contradiction"]
_RTE = ["entailment", "not_entailment"]
_TRUTH = ["False", "True"]
_TRAIN_DEV = ("train", "validation")
_ALL = ("train", "validation", "test")
_DBPEDIA = [
    "Company", "EducationalInstitution", "Artist", "Athlete", "OfficeHolder",
    "MeanOfTransportation", "Building", "NaturalPlace", "Village", "Animal", "Plant", "Album",
    "Film", "WrittenWork",
]  # fmt: skip
_TREC_FINE = ["ABBR:abb", "ENTY:animal", "DESC:def", "HUM:ind", "LOC:city", "NUM:count"]  # of 50


@dataclass(frozen=True)
class Published:
    """One configuration of a published data set.

    Attributes:
        repo: Its name on the hub.
        name: The configuration; "" if the repository declares none.
        splits: Its splits, in order.
        columns: The type of each column: a type's name, the names of a ClassLabel, a mapping of a
            struct, or a sequence as a tuple with the type of its items.
        known_from: Where the above is known from, and what is only assumed.
        layout: The files: ``parquet`` beside a card that lists them, ``lines`` (JSON lines without
            a list), or ``script`` (a loading script, and Parquet only on the hub's own branch).
    """

    repo: str
    name: str
    splits: tuple[str, ...]
    columns: Mapping[str, Any]
    known_from: str
    layout: str = "parquet"


def _glue(name: str, *texts: str, label: list[str], splits: tuple[str, ...] = _ALL) -> Published:
    columns = {**dict.fromkeys(texts, _STRING), "label": label, "idx": _INT32}
    return Published("nyu-mll/glue", name, splits, columns, _GLUE)


def _super(name: str, columns: Mapping[str, Any], label: list[str] | None = None) -> Published:
    columns = {**columns, "idx": _INT32} if "idx" not in columns else columns
    columns = columns if label is None else {**columns, "label": label}
    return Published("aps/super_glue", name, _ALL, columns, _SUPER)


def _texts(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names, _STRING)


_SETFIT_COLUMNS = {"text": _STRING, "label": _INT64, "label_text": _STRING}
_SPANS = {"span1_index": _INT32, "span2_index": _INT32, **_texts("span1_text", "span2_text")}
_SIZES = ("xs", "s", "m", "l", "xl", "debiased")

PUBLISHED = [
    _glue("cola", "sentence", label=["unacceptable", "acceptable"]),
    _glue("mnli", "premise", "hypothesis", label=_NLI,
          splits=("train", "validation_matched", "validation_mismatched", "test_matched",
                  "test_mismatched")),
    _glue("mrpc", "sentence1", "sentence2", label=["not_equivalent", "equivalent"]),
    _glue("qnli", "question", "sentence", label=_RTE),
    _glue("qqp", "question1", "question2", label=["not_duplicate", "duplicate"]),
    _glue("rte", "sentence1", "sentence2", label=_RTE),
    _glue("sst2", "sentence", label=["negative", "positive"]),
    _super("boolq", _texts("question", "passage"), _TRUTH),
    _super("cb", _texts("premise", "hypothesis"), ["entailment", "contradiction", "neutral"]),
    _super("copa", _texts("premise", "choice1", "choice2", "question"), ["choice1", "choice2"]),
    _super("multirc", {**_texts("paragraph", "question", "answer"), "idx": {
        "paragraph": _INT32, "question": _INT32, "answer": _INT32}}, _TRUTH),
    _super("record", {**_texts("passage", "query"), "entities": (_STRING,), "answers": (_STRING,),
                      "idx": {"passage": _INT32, "query": _INT32}}),
    _super("rte", _texts("premise", "hypothesis"), _RTE),
    _super("wic", {**_texts("word", "sentence1", "sentence2"),
                   **dict.fromkeys(("start1", "start2", "end1", "end2"), _INT32)}, _TRUTH),
    _super("wsc", {"text": _STRING, **_SPANS}, _TRUTH),
    _super("wsc.fixed", {"text": _STRING, **_SPANS}, _TRUTH),
    Published("google/boolq", "", _TRAIN_DEV,
              {"question": _STRING, "answer": "bool", "passage": _STRING},
              _SCRIPT.format("boolq") + "code that reads google/boolq"),
    Published("tatsu-lab/alpaca", "", ("train",), _texts("instruction", "input", "output", "text"),
              "its card; code that reads it"),
    Published("stanfordnlp/snli", "plain_text", ("test", "train", "validation"),
              {**_texts("premise", "hypothesis"), "label": _NLI},
              _SCRIPT.format("snli") + "its card says that -1 marks rows without a gold label"),
    Published("rajpurkar/squad", "plain_text", _TRAIN_DEV,
              {**_texts("id", "title", "context", "question"),
               "answers": ({"text": _STRING, "answer_start": _INT32},)},
              _SCRIPT.format("squad") + "its card"),
    Published("ucinlp/drop", "", _TRAIN_DEV,
              {**_texts("section_id", "query_id", "passage", "question"),
               "answers_spans": ({"spans": _STRING, "types": _STRING},)},
              _SCRIPT.format("drop") + "its files on the hub, data/train-* and data/validation-*"),
    *(Published("allenai/winogrande", f"winogrande_{size}", ("train", "test", "validation"),
                _texts("sentence", "option1", "option2", "answer"),
                _SCRIPT.format("winogrande") + "its card and files, winogrande_m/train-* and so on "
                f"(commit df8eb8f); {_LIST}")
      for size in _SIZES),
    Published("fancyzhx/ag_news", "", ("train", "test"),
              {"text": _STRING, "label": ["World", "Sports", "Business", "Sci/Tech"]},
              _SCRIPT.format("ag_news") + "its card"),
    Published("fancyzhx/dbpedia_14", "dbpedia_14", ("train", "test"),
              {"label": _DBPEDIA, **_texts("title", "content")},
              _SCRIPT.format("dbpedia_14") + "its card"),
    Published("fancyzhx/yelp_polarity", "plain_text", ("train", "test"),
              {"text": _STRING, "label": ["1", "2"]},
              _SCRIPT.format("yelp_polarity") + "its card"),
    Published("cornell-movie-review-data/rotten_tomatoes", "", _ALL,
              {"text": _STRING, "label": ["neg", "pos"]},
              _SCRIPT.format("rotten_tomatoes") + "its card"),
    Published("CogComp/trec", "", ("train", "test"),
              {"text": _STRING, "coarse_label": ["ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"],
               "fine_label": _TREC_FINE},
              _SCRIPT.format("trec") + "the branch main still has trec.py, which datasets 4 and 5 "
              "refuse; the hub's conversion, default/test/0000.parquet, has been compared row by "
              "row with the published file by a third party. Six of the 50 fine labels are here",
              layout="script"),
    Published("SetFit/sst5", "", _ALL, _SETFIT_COLUMNS, _SETFIT, layout="lines"),
    Published("SetFit/CR", "", ("train", "test"), _SETFIT_COLUMNS, _SETFIT, layout="lines"),
    Published("SetFit/subj", "", ("train", "test"), _SETFIT_COLUMNS, _SETFIT, layout="lines"),
    Published("jxm/mpqa", "", ("train", "test", "dev"), {"sentence": _STRING, "label": _INT64},
              "its card, with 8,603, 2,000 and 256 rows; assumed: 0 is negative and 1 positive"),
]  # fmt: skip

# The texts of integer labels, in their order.
LABEL_TEXTS = {
    "SetFit/sst5": ["very negative", "negative", "neutral", "positive", "very positive"],
    "SetFit/CR": ["negative", "positive"],
    "SetFit/subj": ["objective", "subjective"],
    "jxm/mpqa": ["0", "1"],
}

ROWS_OF_A_LABEL = 5


def repositories() -> dict[tuple[str, str], Repository]:
    """Return everything that the stand-in has."""
    return {
        **{("datasets", name): repository for name, repository in _data_sets().items()},
        **{("models", name): repository for name, repository in _models().items()},
    }


def _models() -> dict[str, Repository]:
    opt, roberta = _folder("tiny_opt"), _folder("tiny_roberta")
    without = {name: data for name, data in opt.items() if name != "config.json"}
    faults = ("limited", "broken", "unavailable", "stalled", "cut", "cut once", "short", "changed",
              "hung")  # fmt: skip
    return {
        "tiny/opt": Repository(opt),
        "tiny/roberta": Repository(roberta),
        "tiny/shared": Repository(opt),
        "tiny/sharded": Repository(_sharded(opt)),
        "tiny/gated": Repository(opt, gated=True),
        "tiny/private": Repository(opt, private=True),
        "tiny/without-config": Repository(without),
        "tiny/without-weights": Repository(
            {name: data for name, data in opt.items() if not name.endswith(".safetensors")}
        ),
        **{f"faulty/{fault.replace(' ', '-')}": Repository(opt, fault=fault) for fault in faults},
    }


def _folder(name: str) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((EMBEDDED / name).iterdir())}


def _sharded(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the same model with its weights in two files and an index."""
    from safetensors.numpy import load, save

    weights = load(files["model.safetensors"])
    shards = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    place = {name: shards[number % 2] for number, name in enumerate(sorted(weights))}
    parts = {
        shard: save(
            {name: weights[name] for name in place if place[name] == shard}, {"format": "pt"}
        )
        for shard in shards
    }
    size = sum(weight.nbytes for weight in weights.values())
    index = json.dumps({"metadata": {"total_size": size}, "weight_map": place}).encode()
    rest = {name: data for name, data in files.items() if name != "model.safetensors"}
    return {**rest, **parts, "model.safetensors.index.json": index}


def _data_sets() -> dict[str, Repository]:
    found: dict[str, list[Published]] = {}
    for published in PUBLISHED:
        found.setdefault(published.repo, []).append(published)
    sets = {repo: _repository(configurations) for repo, configurations in found.items()}
    sst2 = sets["nyu-mll/glue"].files
    faults = ("limited", "unavailable", "stalled", "cut", "short")
    return {
        **sets,
        "gated/glue": Repository(sst2, gated=True),
        "private/glue": Repository(sst2, private=True),
        "empty/glue": Repository({"README.md": b"# Nothing\n"}),
        **{f"faulty/{fault}": Repository(sst2, fault=fault) for fault in faults},
    }


def _repository(configurations: list[Published]) -> Repository:
    files: dict[str, bytes] = {}
    card: dict[str, list[Any]] = {"dataset_info": [], "configs": []}
    for published in configurations:
        places = {}
        for split in published.splits:
            rows = [*_rows(published, split)]
            if published.layout == "lines":
                stem = "dev" if split == "validation" else split
                files[f"{stem}.jsonl"] = "\n".join(map(json.dumps, rows)).encode()
                continue
            if published.layout == "script":
                files[f"default/{split}/0000.parquet"] = _parquet(published, rows)
                continue
            folder = published.name or "data"
            files[f"{folder}/{split}-00000-of-00001.parquet"] = _parquet(published, rows)
            places[split] = (f"{folder}/{split}-*", len(rows))
        _describe(card, published, places)
    if configurations[0].layout == "script":
        script = f"{configurations[0].repo.partition('/')[2]}.py"
        main = {"README.md": b"# A data set\n", script: b"raise NotImplementedError\n"}
        return Repository(main, branches={PARQUET_BRANCH: files})
    head = yaml.safe_dump(card) if card["configs"] else "license: unknown\n"
    return Repository({"README.md": f"---\n{head}---\n\n# A data set\n".encode(), **files})


def _describe(
    card: dict[str, list[Any]], published: Published, places: Mapping[str, tuple[str, int]]
) -> None:
    """Add a configuration to the YAML header of the card, as `push_to_hub` writes it."""
    if not places:
        return
    name = published.name or "default"
    splits = [
        {"name": split, "num_examples": rows, "num_bytes": 100 * rows}
        for split, (_, rows) in places.items()
    ]
    features = _features(published)._to_yaml_list()
    card["dataset_info"].append({"config_name": name, "features": features, "splits": splits})
    files = [{"split": split, "path": path} for split, (path, _) in places.items()]
    card["configs"].append({"config_name": name, "data_files": files})


def _parquet(published: Published, rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    # The schema holds the names of the labels, as in the files that datasets writes.
    table = pyarrow.Table.from_pylist(rows, schema=_features(published).arrow_schema)
    parquet.write_table(table, file)
    return file.getvalue()


def _features(published: Published) -> Any:
    from datasets import Features

    return Features({name: _feature(kind) for name, kind in published.columns.items()})


def _feature(kind: Any) -> Any:
    from datasets import ClassLabel, Sequence, Value

    match kind:
        case str():
            return Value(kind)
        case list():
            return ClassLabel(names=kind)
        case tuple():
            return Sequence(_feature(kind[0]))
        case _:
            return {name: _feature(value) for name, value in kind.items()}


def _rows(published: Published, split: str) -> Iterator[dict[str, Any]]:
    """Invent some rows for each label; the labels of a test split are hidden where they are."""
    label = _label_column(published)
    kinds = len(_label_names(published)) or 2
    for number in range(kinds * ROWS_OF_A_LABEL):
        value = number % kinds
        row = {name: _value(kind, name, number) for name, kind in published.columns.items()}
        if label:
            hidden = published.repo in ("nyu-mll/glue", "aps/super_glue") and "test" in split
            row[label] = -1 if hidden else value
        if "label_text" in row:
            row["label_text"] = LABEL_TEXTS[published.repo][value]
        yield row | _SPECIAL.get((published.repo, published.name), _nothing)(number, split)
    if published.repo == "stanfordnlp/snli":  # rows on which the annotators did not agree
        yield {"premise": "A cup.", "hypothesis": "It is a cup.", "label": -1}


def _label_column(published: Published) -> str | None:
    return next((name for name in ("label", "coarse_label") if name in published.columns), None)


def _label_names(published: Published) -> list[str]:
    names = published.columns.get(_label_column(published) or "")
    return names if isinstance(names, list) else LABEL_TEXTS.get(published.repo, [])


def _value(kind: Any, name: str, number: int) -> Any:
    match kind:
        case "string":
            return f"This {name} says {_word(number)}."
        case "bool":
            return number % 2 == 0
        case list():
            return number % len(kind)
        case dict():
            return {key: _value(part, key, number) for key, part in kind.items()}
        case tuple():
            return []
        case _:
            return number


@functools.cache
def _words() -> list[str]:
    sounds = [a + b for a in "bdfglmnprst" for b in "aeiou"]
    return [first + second for first in sounds for second in sounds]


def _word(number: int) -> str:
    return _words()[37 * number % len(_words())]


def _nothing(number: int, split: str) -> dict[str, Any]:
    return {}


def _copa(number: int, split: str) -> dict[str, Any]:
    return {"question": "effect" if number % 3 else "cause"}


def _record(number: int, split: str) -> dict[str, Any]:
    entities = sorted({_word(number).title(), _word(number + 1).title(), "Bo"})
    return {
        "passage": f"{' met '.join(entities)}.\n@highlight\nThey are glad.",
        "query": "They say that @placeholder came.",
        "entities": entities,
        "answers": entities[1:],
    }


def _wic(number: int, split: str) -> dict[str, Any]:
    word = _word(number)
    return {"word": word, "sentence1": f"A {word} is here.", "sentence2": f"See the {word}."}


def _wsc(number: int, split: str) -> dict[str, Any]:
    name = _word(number).title()
    return {
        "text": f"{name} had a cup when she left.", "span1_text": name, "span1_index": 0,
        "span2_text": "she", "span2_index": 5,
    }  # fmt: skip


def _squad(number: int, split: str) -> dict[str, Any]:
    word = _word(number)
    answers = [word] if split == "train" else [word, f"the {word}"]
    starts = [4, 0][: len(answers)]
    return {
        "context": f"The {word} is in the cup.",
        "question": "What is in the cup?",
        "answers": {"text": answers, "answer_start": starts},
    }


def _drop(number: int, split: str) -> dict[str, Any]:
    spans = [str(number + 2)] if split == "train" else [str(number + 2), "two cups"]
    return {"answers_spans": {"spans": spans, "types": ["number", "span"][: len(spans)]}}


def _winogrande(number: int, split: str) -> dict[str, Any]:
    return {
        "sentence": f"Ann thanked Bo for a {_word(number)} because _ was late.",
        "option1": "Ann", "option2": "Bo", "answer": "" if split == "test" else str(1 + number % 2),
    }  # fmt: skip


_SPECIAL = {
    ("aps/super_glue", "copa"): _copa,
    ("aps/super_glue", "record"): _record,
    ("aps/super_glue", "wic"): _wic,
    ("aps/super_glue", "wsc"): _wsc,
    ("aps/super_glue", "wsc.fixed"): _wsc,
    ("rajpurkar/squad", "plain_text"): _squad,
    ("ucinlp/drop", ""): _drop,
    **{("allenai/winogrande", f"winogrande_{size}"): _winogrande for size in _SIZES},
}
