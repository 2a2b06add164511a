"""Choose and check the device that a model is loaded onto."""

from __future__ import annotations

import logging

import torch
from transformers.utils.import_utils import is_accelerate_available

from lozo_bench.config.schema import ModelConfig
from lozo_bench.errors import UserError, bad_value

_STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")
log = logging.getLogger(__name__)
_CONTEXT_BYTES = 2**30  # the CUDA context of this process takes less than this
_ALLOWED = "auto, cpu, cuda, cuda:N or mps"


def choose_device(name: str) -> torch.device:
    """Return the device called ``name``; ``auto`` means cuda if available, else mps, else cpu.

    Raises:
        UserError: this machine does not have that device. A run never falls back to another one.
    """
    if name == "auto":
        return torch.device(_best())
    try:
        device = torch.device(name)
    except RuntimeError as err:
        raise bad_value("model.device", name, _ALLOWED) from err
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise bad_value("model.device", name, f"this machine has {count} CUDA devices")
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise bad_value("model.device", name, "this machine has no MPS device")
    elif device.type != "cpu":
        raise bad_value("model.device", name, _ALLOWED)
    return device


def check_device_map(config: ModelConfig) -> None:
    """Raise UserError unless ``model.device_map`` is null or can be used on this machine."""
    if config.device_map is None:
        return
    if config.device != "auto":
        raise UserError(
            f"model.device_map: given {config.device_map!r} beside model.device="
            f"{config.device!r}; allowed: only one of the two; what to do: leave model.device=auto"
        )
    if not _has_accelerate():
        raise UserError(
            "model.device_map needs the package accelerate; what to do: pip install -U accelerate"
        )
    if config.device_map not in _STRATEGIES:
        try:
            choose_device(config.device_map)
        except UserError as err:
            allowed = f"{', '.join(_STRATEGIES)} or a device of this machine"
            raise bad_value("model.device_map", config.device_map, allowed) from err


def prepare(device: torch.device) -> None:
    """Choose, for this process, what suits runs whose batches have many shapes.

    On a GPU, cuDNN compiles attention in half precision for every new number of rows and length,
    50 ms on an H100. torch's other kernels are as fast there and need no compilation.
    """
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)


DeviceMap = str | dict[str, torch.device] | None


def placement(device_map: str | None, device: torch.device) -> DeviceMap:
    """Return the device map that transformers loads with; None: into the host's memory first.

    Weights go straight to a GPU: the host may not have the memory for all of them. With one GPU,
    there is nothing to divide a model among: the strategies would leave a tenth of the GPU free,
    and could leave layers on the host, where they cannot be trained.

    Args:
        device_map: ``model.device_map``.
        device: the device of a model that is not divided.
    """
    if device_map is not None and not (
        device_map in _STRATEGIES and torch.cuda.device_count() == 1
    ):
        return device_map
    if device.type != "cuda" or not _has_accelerate():
        return device_map
    index = torch.cuda.current_device() if device.index is None else device.index
    return {"": torch.device("cuda", index)}


def warn_if_shared(device: torch.device) -> None:
    """Log a warning if other processes hold more than a tenth of the GPU's memory (and > 1 GiB).

    Runs that share a GPU slow each other down.
    """
    if device.type != "cuda":
        return
    free, total = torch.cuda.mem_get_info(device)
    used_elsewhere = total - free - torch.cuda.memory_reserved(device)
    if used_elsewhere > max(0.1 * total, _CONTEXT_BYTES):
        log.warning(
            "%s: other processes hold %.1f of %.1f GiB; two runs on one GPU slow each other down",
            device,
            used_elsewhere / 2**30,
            total / 2**30,
        )


def _has_accelerate() -> bool:
    """Return whether accelerate is there, and not too old for transformers."""
    return bool(is_accelerate_available())


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
