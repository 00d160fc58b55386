"""Device memory, copies and a stream, by the CUDA driver that every NVIDIA machine has (ctypes).

Status: not run on a GPU. The calls and their argument types follow the CUDA Driver API reference; tests
check the order of calls and the handling of errors against a library that records them.
"""

from __future__ import annotations

import ctypes
from typing import Any

from numpy.typing import NDArray

from omni_sdk.errors import BackendUnavailableError, EngineError

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
_LIBRARIES = ("libcuda.so.1", "libcuda.so")


def open_driver() -> Any:
    """Load the driver's library.

    Raises:
        BackendUnavailableError: there is none.
    """
    for name in _LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise BackendUnavailableError(
        "TensorRT needs the NVIDIA driver, and libcuda.so.1 was not found; install the driver, or use "
        "backend='onnx', device='cpu'"
    )


class Device:
    """One GPU with its primary context and a stream; free buffers are kept for the next call.

    Args:
        index: of the device.
        driver: the driver's library; None: the machine's.

    Raises:
        BackendUnavailableError: no driver.
        EngineError: no such device, or the driver refuses.
    """

    def __init__(self, index: int, driver: Any = None) -> None:
        self._driver = open_driver() if driver is None else driver
        self._handle = ctypes.c_int()
        context, stream = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuInit", ctypes.c_uint(0))
        self._call("cuDeviceGet", ctypes.byref(self._handle), ctypes.c_int(index))
        # The runtime API, which TensorRT uses, works in the primary context as well.
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._handle)
        self._context = context
        self.activate()
        self._call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(0))
        self._stream = stream

    @property
    def stream(self) -> int:
        """Handle of the stream."""
        return int(self._stream.value or 0)

    @property
    def cuda_version(self) -> tuple[int, int]:
        """Newest CUDA that the driver runs, e.g. (13, 0)."""
        value = ctypes.c_int()
        self._call("cuDriverGetVersion", ctypes.byref(value))
        return value.value // 1000, value.value % 1000 // 10

    @property
    def compute_capability(self) -> str:
        """E.g. "8.7" (Jetson Orin)."""
        parts = []
        for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
            value = ctypes.c_int()
            code = ctypes.c_int(attribute)
            self._call("cuDeviceGetAttribute", ctypes.byref(value), code, self._handle)
            parts.append(str(value.value))
        return ".".join(parts)

    def activate(self) -> None:
        """Make the context current in this thread; every thread that uses the device must."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, num_bytes: int) -> DeviceBuffer:
        """Allocate memory.

        Raises:
            EngineError: not enough memory; says how much was asked for and how much is free.
        """
        return DeviceBuffer(self, num_bytes)

    def free_bytes(self) -> int:
        """Return the free memory in bytes."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def upload(self, value: NDArray[Any], buffer: DeviceBuffer) -> None:
        """Copy a C-contiguous array into a buffer that is large enough; `value` must live until `wait`."""
        if value.nbytes:
            source = ctypes.c_void_p(value.ctypes.data)
            size = ctypes.c_size_t(value.nbytes)
            self._call("cuMemcpyHtoDAsync_v2", buffer.pointer, source, size, self._stream)

    def download(self, buffer: DeviceBuffer, value: NDArray[Any]) -> None:
        """Copy a buffer into a C-contiguous array; it is filled after `wait`."""
        if value.nbytes:
            target = ctypes.c_void_p(value.ctypes.data)
            size = ctypes.c_size_t(value.nbytes)
            self._call("cuMemcpyDtoHAsync_v2", target, buffer.pointer, size, self._stream)

    def wait(self) -> None:
        """Wait until everything on the stream is done."""
        self._call("cuStreamSynchronize", self._stream)

    def _call(self, name: str, *arguments: Any) -> None:
        code = int(getattr(self._driver, name)(*arguments))
        if code:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(ctypes.c_int(code), ctypes.byref(text))
            why = (text.value or b"unknown error").decode("utf-8", "replace")
            raise EngineError(f"CUDA: {name} failed with code {code}: {why}")


class DeviceBuffer:
    """A block of device memory, freed with the object.

    Attributes:
        pointer: its address.
        num_bytes: its size; never 0, since TensorRT wants an address even for an empty tensor.
    """

    def __init__(self, device: Device, num_bytes: int) -> None:
        self._device = device
        self.num_bytes = max(num_bytes, 256)
        self.pointer = ctypes.c_uint64()
        try:
            device._call(
                "cuMemAlloc_v2", ctypes.byref(self.pointer), ctypes.c_size_t(self.num_bytes)
            )
        except EngineError as e:
            raise EngineError(
                f"{e}; {self.num_bytes} bytes were asked for, {device.free_bytes()} are free: pass "
                "memory_budget, or choose a smaller variant, fewer frames or fewer objects"
            ) from e

    @property
    def address(self) -> int:
        """The address as a number."""
        return int(self.pointer.value)

    def __del__(self) -> None:
        if getattr(self, "pointer", None) is not None and self.pointer.value:
            self._device._driver.cuMemFree_v2(self.pointer)
            self.pointer.value = 0


class BufferPool:
    """One buffer per name that only grows.

    Args:
        device: of the buffers.
        spare: a buffer that has to grow gets this share more than asked for, so that what grows by a little
            on every call is not allocated on every call.
    """

    def __init__(self, device: Device, spare: float = 0.0) -> None:
        self._device = device
        self._spare = spare
        self._buffers: dict[str, DeviceBuffer] = {}

    def get(self, name: str, num_bytes: int) -> DeviceBuffer:
        """Return the buffer of a name, at least this large."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.num_bytes < num_bytes:
            self._buffers.pop(name, None)
            del buffer  # freed before the larger one is asked for
            room = num_bytes + int(self._spare * num_bytes)
            buffer = self._buffers[name] = self._device.allocate(room)
        return buffer
