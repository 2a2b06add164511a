"""Errors of a GPU are told apart; errors of the computation are left alone."""

from __future__ import annotations

import pytest
import torch

from lozo_bench.engine.device_errors import explanation, raise_if_of_the_device

ASSERT = (
    "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported"
)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB.\nmore"), "the GPU is out of mem"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(h)`"),
            "the GPU is out of memory (CUDA error: CUBLAS",
        ),
        (RuntimeError(ASSERT), "an operation on the GPU refused its input"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"),
            "a library of the GPU failed",
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"), "a library of the GPU failed"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "the GPU failed"),
        (
            RuntimeError("CUDA error: no kernel image is available for execution on the device"),
            "this torch",
        ),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
            "the host is out of memory",
        ),
    ],
)
def test_each_kind_has_one_line_that_says_what_to_do(error, said):
    why = explanation(error)
    assert why is not None
    assert why.startswith(said)
    assert "\n" not in why
    with pytest.raises(RuntimeError) as raised:
        raise_if_of_the_device(error)
    assert raised.value is error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
        ValueError("CUDA error: this is no error of torch"),
    ],
)
def test_an_error_of_the_computation_is_none_of_the_device(error):
    assert explanation(error) is None
    raise_if_of_the_device(error)
