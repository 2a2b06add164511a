"""Models and data sets from the hub, with the real clients and a stand-in hub on this machine.

`standin_hub` is the server, `hub_repositories` what it has (with the table of the published data
sets that it imitates), and `hub_user` the process that reads from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hub_repositories
import pytest
import yaml
from hub_user import HubUser
from standin_hub import LICENSED, PLAIN, StandinHub

# Reading every task takes 20 seconds of CPU time in one fixture, minutes on a busy machine.
pytestmark = pytest.mark.timeout(500)
CONF = Path(__file__).resolve().parents[1] / "conf" / "task"
SHORT = ("optimizer=zero_shot", "tracking=files", "model.device=cpu")
VIEWER = "datasets-server.127.0.0.1"  # the dataset viewer of this hub; datasets does without it


def _node(name: str) -> dict[str, Any]:
    node: dict[str, Any] = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    return node


TASKS = sorted(path.stem for path in CONF.glob("*.yaml") if "hub" in _node(path.stem)["source"])
# The tokenizer of the tiny models splits the label words of these tasks.
OTHER_WORDS = {
    "cola_kshot": "[terrible,great]",
    "subj_kshot": "[terrible,great]",
    "sst5_kshot": "[Description,Entity,Human,Location,Number]",
}
SIZES = {
    "Subsample": ["task.source.num_train=4", "task.source.num_dev=2", "task.source.num_test=8"],
    "KShot": ["task.source.k=2"],
    "FewShot": ["task.source.k=2"],
    "Whole": [],
    "Instructions": ["task.source.test_share=0.5", "task.max_length=200"],  # a long fixed text
}
LABELS = {"KShot": 2, "FewShot": 2}  # rows of each label in the train and dev sets


def overrides(name: str) -> list[str]:
    """Return a command line that reads few rows of a task with a tiny model."""
    source = _node(name)["source"]
    kind = source["_target_"].rpartition(".")[2]
    sizes = [
        size.replace("num_dev=", "num_dev.sane=")
        if isinstance(source.get("num_dev"), dict)
        else size
        for size in SIZES[kind]
    ]
    masked = kind in LABELS and name != "dbpedia_clora"
    model = ["model=tiny_roberta" if masked else "model=tiny_opt"]
    model += ["model.kind=classifier"] if kind == "Whole" else []
    words = [f"task.label_words={OTHER_WORDS[name]}"] if name in OTHER_WORDS else []
    return [f"task={name}", "task.max_length=64", *sizes, *model, *words]


@pytest.fixture(scope="module")
def hub() -> Iterator[StandinHub]:
    with StandinHub(hub_repositories.repositories()) as standin:
        yield standin
        assert not standin.leaked


@pytest.fixture(scope="module")
def user(hub: StandinHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubUser]:
    with HubUser(hub.address, tmp_path_factory.mktemp("user")) as started:
        yield started


@pytest.fixture(scope="module")
def read(user: HubUser) -> dict[str, Any]:
    """Every task, read from the hub, drawn and encoded, in one process."""
    found: dict[str, Any] = user.call("encoded_tasks", {name: overrides(name) for name in TASKS})
    return found


def requests_of(hub: StandinHub, do: Callable[[], object]) -> list[tuple[str, str]]:
    before = len(hub.requests)
    do()
    return hub.requests[before:]


# Data sets.


def test_the_table_has_what_every_task_reads() -> None:
    known = {(p.repo, p.name): p for p in hub_repositories.PUBLISHED}
    for name in TASKS:
        source = _node(name)["source"]
        node = source["hub"]
        published = known[node["path"], node.get("name") or _only_name(node["path"])]
        assert {node["train"], node["test"]} <= set(published.splits), name
        columns = [*node["fields"].values(), *node.get("answers", [])]
        columns += [node[key] for key in ("label", "options") if node.get(key)]
        assert {column.split(".")[0] for column in columns} <= set(published.columns), name
        labels = published.columns.get(node.get("label", ""))
        if isinstance(labels, list):
            translated = [node.get("labels", {}).get(label, label) for label in labels]
            same = source.get("same_labels", {})
            assert {same.get(label, label) for label in translated} == set(source["labels"]), name
        assert published.known_from


def _only_name(repo: str) -> str:
    (name,) = [published.name for published in hub_repositories.PUBLISHED if published.repo == repo]
    return name


@pytest.mark.parametrize("name", TASKS)
def test_a_task_reads_draws_and_encodes_the_rows_of_the_hub(
    name: str, read: dict[str, Any]
) -> None:
    found, node = read[name], _node(name)
    assert "error" not in found, found["error"]
    kind = node["source"]["_target_"].rpartition(".")[2]
    classes = range(len(node["source"].get("labels", [])))
    if kind in LABELS:
        drawn = [label for label in classes for _ in range(LABELS[kind])]
        assert sorted(found["train"]) == sorted(found["dev"]) == drawn
    elif kind == "Subsample":
        assert [len(found[split]) for split in ("train", "dev", "test")] == [
            4,
            2,
            min(8, len(found["test"])),
        ]
    assert len(found["test"]) >= 4
    if classes:
        assert set(found["test"]) == set(classes)
    elif kind == "Instructions":
        assert all(len(golds) == 1 for golds in found["golds"])
    else:
        assert all(len(golds) == 2 for golds in found["golds"])  # as the invented rows have them
    assert re.search(r"[bdfglmnprst][aeiou]{1}", found["text"])


def test_the_draw_does_not_depend_on_whether_the_hub_or_its_cache_is_read(
    user: HubUser, hub: StandinHub, read: dict[str, Any]
) -> None:
    names = ["sst2_kshot", "trec_kshot", "squad"]  # with a configuration, a revision, and neither
    commands = {name: overrides(name) for name in names}
    again: list[Any] = []
    asked = requests_of(hub, lambda: again.append(user.call("encoded_tasks", commands)))
    assert not [path for method, path in asked if path.startswith("storage")]
    offline = requests_of(
        hub, lambda: again.append(user.call("encoded_tasks", commands, offline=True))
    )
    assert offline == []
    assert again == [{name: read[name] for name in names}] * 2


SST2 = ("task=sst2", "task.max_length=64", *SIZES["Subsample"], "model=tiny_opt")


def data_error(user: HubUser, *changed: str, **how: Any) -> str:
    found = user.call("encoded_tasks", {"sst2": [*SST2, *changed]}, **how)["sst2"]
    message: str = found["error"]
    assert message.startswith(("task.source.hub: ", "hub:"))
    assert "\n" not in message
    return message


DATA_ERRORS = [
    ("missing/glue", [], r"'missing/glue' is not a folder .* no data set of this name.* HF_TOKEN"),
    ("a/b/c", [], "'a/b/c' is neither a folder on this machine nor a name on the hub"),
    ("gated/glue", [], "is gated; what to do: accept its licence at http.*/datasets/gated/glue"),
    ("empty/glue", [], "doesn't contain any data files"),
    ("nyu-mll/glue", ["task.source.hub.name=sst3"], "'sst3' not found. Available: .*'sst2'"),
    ("nyu-mll/glue", ["task.source.hub.test=dev"], 'Unknown split "dev".*validation'),
    ("nyu-mll/glue", ["+task.source.hub.revision=v9"], "has no such branch, tag or commit"),
    ("nyu-mll/glue", ["task.source.hub.fields.sentence=text"], "no column 'text'; there are 'sen"),
    ("CogComp/trec", ["task.source.hub.name=null"], r"\+task.source.hub.revision=refs/convert/par"),
    ("faulty/limited", [], r"status 429.* wait 283 seconds.*HF_HUB_OFFLINE=1"),
    ("faulty/unavailable", [], "problem of its own .status 503.*again later"),
    ("faulty/stalled", [], "did not answer in time.*HF_HUB_ETAG_TIMEOUT"),
    ("faulty/cut", [], "download of the data set 'faulty/cut' broke off"),
    ("faulty/short", [], "broke off .*should be of size"),
]


@pytest.mark.parametrize(("repo", "changed", "message"), DATA_ERRORS)
def test_a_data_set_that_cannot_be_read_is_one_line_that_says_what_to_do(
    user: HubUser, repo: str, changed: list[str], message: str
) -> None:
    found = data_error(user, f"task.source.hub.path={repo}", *changed, cold=True)
    assert re.search(message, found)
    assert "task.data_dir=DIR" in found or found.startswith("hub:")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("task.source.hub.path=missing/glue", "is not a folder .* HF_HUB_OFFLINE is set, and the"),
        ("task.source.hub.name=wnli", "find cache .*config 'wnli'.*unset HF_HUB_OFFLINE"),
        ("+task.source.hub.revision=v9", "at revision 'v9' is not, or not all of it, in the cache"),
    ],
)
def test_what_the_cache_lacks_is_not_replaced_by_what_it_has(
    user: HubUser, read: dict[str, Any], changed: str, message: str
) -> None:
    found = data_error(user, changed, offline=True)
    assert re.search(message, found)
    assert "set HF_HUB_OFFLINE=1" not in found


# Models.


def test_a_run_with_model_and_rows_of_the_hub_downloads_them_once(
    user: HubUser, hub: StandinHub
) -> None:
    command = (
        *SHORT,
        "task=rte_kshot",
        "task.source.k=2",
        "model=local",
        "model.path=tiny/roberta",
    )
    ended = user.command(*command, token=LICENSED)
    assert (ended.code, set(ended.hosts) - {VIEWER}) == (0, set()), ended.err
    assert "HTTP Request" not in ended.err
    assert LICENSED not in ended.out + ended.err
    again = requests_of(hub, lambda: user.command(*command))
    assert not [path for _, path in again if path.startswith("storage")]
    assert not [path for method, path in again if method == "GET" and "/api/resolve-cache" in path]
    offline: list[Any] = []
    asked = requests_of(hub, lambda: offline.append(user.command(*command, offline=True)))
    assert (asked, offline[0].code) == ([], 0)
    assert re.findall("test accuracy.*", offline[0].err) == re.findall("test acc.*", ended.err)


def test_a_model_in_several_files_is_the_same_model(user: HubUser) -> None:
    assert user.call("loaded_model", "tiny/sharded") == "248512 weights"


def test_a_download_that_breaks_off_goes_on(user: HubUser, hub: StandinHub) -> None:
    loaded: list[str] = []
    asked = requests_of(
        hub, lambda: loaded.append(user.call("loaded_model", "faulty/cut-once", cold=True))
    )
    assert loaded == ["248512 weights"]
    assert len([path for _, path in asked if path.startswith("storage")]) == 2


def test_processes_that_start_together_download_once(user: HubUser, hub: StandinHub) -> None:
    loaded: list[Any] = []
    asked = requests_of(hub, lambda: loaded.append(user.call("loaded_together", "tiny/shared", 2)))
    assert loaded == [["248512 weights"] * 2]
    assert len([path for _, path in asked if path.startswith("storage")]) == 1


MODEL_ERRORS = [
    ("tiny/missing", "'tiny/missing' is not a folder .* no model of this name.* HF_TOKEN"),
    ("a/b/c", "'a/b/c' is neither a folder on this machine nor a name on the hub"),
    ("tiny/private", "no model of this name, or this account may not see it"),
    ("tiny/without-config", "the model 'tiny/without-config' .* has no config.json"),
    ("tiny/without-weights", "cannot load .* no|not appear to have a file .* weights"),
    ("faulty/limited", r"status 429.* wait 283 seconds.*HF_HUB_OFFLINE=1"),
    ("faulty/broken", "problem of its own .status 500"),
    ("faulty/unavailable", "problem of its own .status 503"),
    ("faulty/stalled", "did not answer in time.*HF_HUB_ETAG_TIMEOUT"),
    ("faulty/hung", "did not answer in time.*HF_HUB_DOWNLOAD_TIMEOUT"),
    ("faulty/cut", "download of the model 'faulty/cut' broke off.*run the same command again"),
    ("faulty/short", "broke off .*should be of size 999616"),
    ("faulty/changed", "SHA-256 differs.* has been removed from the cache"),
]


@pytest.mark.parametrize(("path", "message"), MODEL_ERRORS)
def test_a_model_that_cannot_be_read_is_one_line_that_says_what_to_do(
    user: HubUser, path: str, message: str
) -> None:
    found: str = user.call("loaded_model", path, cold=True)
    assert found.startswith("model.path: ")
    assert "\n" not in found
    assert re.search(message, found)


def test_a_damaged_download_is_not_taken_from_the_cache_either(user: HubUser) -> None:
    for _ in range(2):
        assert "SHA-256 differs" in user.call("loaded_model", "faulty/changed")


GATED = "is gated; what to do: accept its licence at .*/tiny/gated, then set HF_TOKEN or run"
TOKENS = [
    ("tiny/gated", None, GATED),
    ("tiny/gated", PLAIN, "is gated and the account of this machine's token has no access"),
    ("tiny/private", PLAIN, "for a private one use a token of an account that may read it"),
    ("tiny/opt", "hf_" + "w" * 34, "refuses this machine's token; what to do: set HF_TOKEN"),
    ("tiny/opt", "hf_" + "ö" * 34, "cannot be sent .*; what to do: check HF_TOKEN"),
]


@pytest.mark.parametrize(("path", "token", "message"), TOKENS)
def test_the_command_says_what_a_token_lacks_and_never_the_token(
    user: HubUser, path: str, token: str | None, message: str
) -> None:
    command = (*SHORT, "task=reviews", "model=local", f"model.path={path}")
    ended = user.command(*command, token=token, cold=True)
    assert (ended.code, ended.out, ended.hosts) == (2, "", [])
    (line,) = ended.err.splitlines()
    assert re.search(message, line)
    assert token is None or token not in line


@pytest.mark.parametrize("path", ["tiny/gated", "tiny/private"])
def test_a_token_of_an_account_with_access_opens_what_is_closed(user: HubUser, path: str) -> None:
    loaded = user.call("loaded_model", path, token=LICENSED, cold=True)
    assert loaded == "248512 weights"


def test_an_empty_cache_without_the_hub_says_so_and_advises_nothing_that_is_set(
    user: HubUser, hub: StandinHub
) -> None:
    command = (*SHORT, "task=reviews", "model=local", "model.path=tiny/opt")
    ended: list[Any] = []
    asked = requests_of(hub, lambda: ended.append(user.command(*command, offline=True, cold=True)))
    (line,) = ended[0].err.splitlines()
    assert (asked, ended[0].code) == ([], 2)
    assert "HF_HUB_OFFLINE is set, and the model is not, or not all of it, in the cache" in line
    assert "`hf download tiny/opt --local-dir DIR`" in line
    assert "HF_HUB_OFFLINE=1" not in line
