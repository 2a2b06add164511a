"""Where a model's weights are loaded to."""

from __future__ import annotations

import pytest
import torch

from lozo_bench.models import devices, load
from lozo_bench.models.devices import placement, prepare

CPU, GPU, SECOND = torch.device("cpu"), torch.device("cuda"), torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("device_map", "device", "cards", "accelerate", "where"),
    [
        (None, CPU, 0, True, None),
        (None, GPU, 1, True, {"": torch.device("cuda", 0)}),
        (None, SECOND, 2, True, {"": SECOND}),
        (None, GPU, 1, False, None),
        ("auto", GPU, 1, True, {"": torch.device("cuda", 0)}),
        ("auto", GPU, 2, True, "auto"),
        ("auto", CPU, 0, True, "auto"),
        ("cuda:1", GPU, 2, True, "cuda:1"),
    ],
)
def test_weights_go_straight_to_a_gpu(monkeypatch, device_map, device, cards, accelerate, where):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(devices, "_has_accelerate", lambda: accelerate)
    assert placement(device_map, device) == where


@pytest.mark.parametrize("arch", ["opt", "roberta"])
def test_a_model_that_was_loaded_straight_to_its_device_is_the_same(monkeypatch, make, arch):
    """The CPU stands for the GPU: transformers takes the same way."""
    pytest.importorskip("accelerate")
    config = load.ModelConfig(name="m", path=str(make(arch)), device="cpu")
    before = load.load(config).model.state_dict()
    monkeypatch.setattr(load, "placement", lambda device_map, device: {"": CPU})
    straight = load.load(config).model
    assert before.keys() == straight.state_dict().keys()
    assert all(x.equal(before[name]) for name, x in straight.state_dict().items())


def test_on_a_gpu_attention_is_not_compiled_for_each_shape(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", calls.append)
    prepare(CPU)
    assert calls == []
    prepare(SECOND)
    assert calls == [False]
