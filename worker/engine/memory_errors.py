"""Recognises lack of memory in the errors of torch, ONNX Runtime, CUDA, cuBLAS and cuDNN, which have many names for it.

Only these are recognised by their texts. Whether the device is lost is not: it is asked (device_thread.py).
"""

SIGNS = (
    "out of memory",  # CUDA, also for memory of the host that is pinned; torch; MPS
    "cannot allocate memory",
    "can't allocate memory",  # torch on CPUs
    "failed to allocate memory",  # ONNX Runtime
    "alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED and CUDNN_STATUS_ALLOC_FAILED
    "unable to find an engine",  # cuDNN, when no algorithm's workspace fits
    "cuda failure 2",  # ONNX Runtime's name of cudaErrorMemoryAllocation
    "bad allocation",
    "std::bad_alloc",
)
"""Parts of messages, in lower case."""


def reason(error: Exception) -> str | None:
    """Return what an error says, if it is lack of memory; else None. The text holds no tensors, as the error may."""
    text = str(error)
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in SIGNS):
        return text or type(error).__name__
    return None
