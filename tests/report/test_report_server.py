"""``--watch`` serves the report to this machine alone, and sends data only if they are newer."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import contextmanager

import pytest
from report_folders import row, write_run

from lozo_bench.errors import UserError
from lozo_bench.report import serve
from lozo_bench.report.collect import Collector


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path, test=None)


@contextmanager
def served(folder):
    server = serve.serve(Collector(folder), 0)
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def ask(server, path, **headers):
    connection = http.client.HTTPConnection(*server.server_address, timeout=10)
    connection.request(
        "GET", path, headers={key.replace("_", "-"): x for key, x in headers.items()}
    )
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer, body


def test_it_listens_on_the_loopback_address_only(run, tmp_path):
    with served(tmp_path) as server:
        assert server.server_address[0] == "127.0.0.1"
        answer, page = ask(server, "/")
        assert answer.status == 200
        assert 'data-watched="true"' in page


def test_a_request_that_was_meant_for_another_host_is_refused(run, tmp_path):
    with served(tmp_path) as server:
        assert ask(server, "/data.json", Host="elsewhere.example")[0].status == 403
        assert ask(server, "/../../etc/passwd")[0].status == 404


def test_data_are_sent_again_only_after_a_run_went_on(run, tmp_path, monkeypatch):
    monkeypatch.setattr(serve, "_EVERY_S", 0.0)
    monkeypatch.setattr(serve.Latest.__init__, "__defaults__", (0.0,))
    with served(tmp_path) as server:
        answer, first = ask(server, "/data.json")
        tag = answer.headers["ETag"]
        assert ask(server, "/data.json", If_None_Match=tag)[0].status == 304
        with (run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row(9, 0.1)) + "\n")
        answer, second = ask(server, "/data.json", If_None_Match=tag)
        assert answer.status == 200
        assert json.loads(second)["runs"][0]["progress"] == [9, 4]
        assert json.loads(first)["runs"][0]["progress"] == [4, 4]


def test_a_port_that_is_taken_is_one_line(run, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port: given {port}; it cannot be used"):
            serve.serve(Collector(tmp_path), port)
