"""Errors of a GPU and its libraries, which torch raises as RuntimeErrors of many kinds."""

from __future__ import annotations

import torch

# Parts of messages, each with what the error is about. The first that occurs counts.
_FULL = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "CUDA error: out of memory")
_FULL_HOST = ("DefaultCPUAllocator",)
_ASSERT = ("device-side assert",)
_OTHER_CARD = ("no kernel image is available",)
_LIBRARY = ("CUBLAS_STATUS_", "CUDNN_STATUS_", "cuDNN error", "cuBLAS error")
_CARD = ("CUDA error", "CUDA driver error", "HIP error")

_KEPT = "The steps so far are kept"
_SMALLER = (
    "smaller: batch_size, eval_batch_size, engine.candidates_per_forward=1 or model.dtype=bf16"
)


def raise_if_of_the_device(error: BaseException) -> None:
    """Raise an error again that is not about what was computed, but about where."""
    if explanation(error) is not None:
        raise error


def explanation(error: BaseException) -> str | None:
    """Return one line on an error of a GPU or of memory, with what to do; None for others."""
    text = str(error)
    message = (text.splitlines() or [""])[0]

    def has(parts: tuple[str, ...]) -> bool:
        return any(part in text for part in parts)

    if not isinstance(error, RuntimeError):  # which all of torch's are
        return None
    if isinstance(error, torch.OutOfMemoryError) or has(_FULL):
        return (
            f"the GPU is out of memory ({message}); {_SMALLER}; or more GPUs: "
            f"model.device_map=auto. {_KEPT}"
        )
    if has(_FULL_HOST):
        return f"the host is out of memory ({message}); {_SMALLER}. {_KEPT}"
    if has(_ASSERT):
        return (
            f"an operation on the GPU refused its input ({message}): most often an index is out of "
            "range, such as a token beyond the model's vocabulary or a row longer than its "
            "positions. The GPU says which only with CUDA_LAUNCH_BLOCKING=1, and a CPU says it at "
            f"once: model.device=cpu. {_KEPT}"
        )
    if has(_OTHER_CARD):
        return (
            f"this torch ({torch.__version__}) was not built for this GPU ({message}); what to do: "
            "install the torch that fits it, see pytorch.org, or model.device=cpu"
        )
    if has(_LIBRARY):
        return (
            f"a library of the GPU failed ({message}); what to do: the same command again; if it "
            "fails again, model.dtype=fp32 or another GPU, and CUDA_LAUNCH_BLOCKING=1 shows the "
            f"operation. {_KEPT}"
        )
    if has(_CARD):
        return (
            f"the GPU failed ({message}); what to do: the same command again, in a new process; if "
            f"it fails again, CUDA_LAUNCH_BLOCKING=1 shows the operation. {_KEPT}"
        )
    return None
