"""The C++ library of CPU kernels: finding it, and its calls as Python functions on tensors.

Knows the C structs of ``native/native.h`` and nothing of models. The library is built beside this file by
``kernels.cpu.build`` (the package's build hook and ``make`` call it); without it ``available()`` is false and callers
take the torch path.
"""

import ctypes
import os
from ctypes import POINTER, Structure, byref, c_char_p, c_float, c_int, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch

VERSION = 4
PATH = Path(__file__).with_name("libbanyan_cpu.so")
WEIGHT_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
KV_KINDS = {torch.float32: 0, torch.bfloat16: 1}


class LinearCall(Structure):
    """``LinearCall`` of native.h."""

    _fields_ = (
        ("x", c_void_p),
        ("rows", c_int64),
        ("x_stride", c_int64),
        ("weight", c_void_p),
        ("kind", c_int32),
        ("gated", c_int32),
        ("width", c_int64),
        ("depth", c_int64),
        ("scales", c_void_p),
        ("bias", c_void_p),
        ("out", c_void_p),
        ("out_stride", c_int64),
    )


class FiniteCall(Structure):
    """``FiniteCall`` of native.h."""

    _fields_ = (
        ("x", c_void_p),
        ("rows", c_int64),
        ("width", c_int64),
        ("stride", c_int64),
        ("finite", c_void_p),
    )


class NormCall(Structure):
    """``NormCall`` of native.h."""

    _fields_ = (
        ("x", c_void_p),
        ("residual", c_void_p),
        ("weight", c_void_p),
        ("out", c_void_p),
        ("rows", c_int64),
        ("width", c_int64),
        ("eps", c_float),
    )


class Pool(Structure):
    """``Pool`` of native.h; see ``kernels.kv_layout`` for the tiles of keys."""

    _fields_ = (
        ("data", c_void_p),
        ("kind", c_int32),
        ("layers", c_int64),
        ("kv_heads", c_int64),
        ("page_size", c_int64),
        ("head_dim", c_int64),
    )

    @classmethod
    def of(cls, pool: torch.Tensor) -> "Pool":
        """A pool [pages, layers, 2, kv_heads, page_size, head_dim]."""
        layers, _, kv_heads, page_size, head_dim = pool.shape[1:]
        return cls(pool.data_ptr(), KV_KINDS[pool.dtype], layers, kv_heads, page_size, head_dim)


class RotateCall(Structure):
    """``RotateCall`` of native.h."""

    _fields_ = (
        ("qkv", c_void_p),
        ("rows", c_int64),
        ("heads", c_int64),
        ("cosine", c_void_p),
        ("sine", c_void_p),
        ("q_norm", c_void_p),
        ("k_norm", c_void_p),
        ("eps", c_float),
        ("pool", Pool),
        ("layer", c_int64),
        ("slots", c_void_p),
        ("q", c_void_p),
    )


class AttentionCall(Structure):
    """``AttentionCall`` of native.h."""

    _fields_ = (
        ("q", c_void_p),
        ("out", c_void_p),
        ("heads", c_int64),
        ("pool", Pool),
        ("layer", c_int64),
        ("items", c_int64),
        ("counts", c_void_p),
        ("starts", c_void_p),
        ("tables", c_void_p),
        ("table_stride", c_int64),
        ("runs", c_void_p),
        ("run_count", c_int64),
        ("scale", c_float),
    )


class LayerWeights(Structure):
    """``LayerWeights`` of native.h."""

    _fields_ = (
        ("qkv", LinearCall),
        ("output", LinearCall),
        ("gate_up", LinearCall),
        ("down", LinearCall),
        ("attention_norm", c_void_p),
        ("mlp_norm", c_void_p),
        ("q_norm", c_void_p),
        ("k_norm", c_void_p),
    )


class DecodeCall(Structure):
    """``DecodeCall`` of native.h."""

    _fields_ = (
        ("layers", POINTER(LayerWeights)),
        ("layer_count", c_int64),
        ("residual", c_void_p),
        ("rows", c_int64),
        ("hidden", c_int64),
        ("eps", c_float),
        ("rotate", RotateCall),
        ("attention", AttentionCall),
    )


class SampleCall(Structure):
    """``SampleCall`` of native.h."""

    _fields_ = (
        ("logits", c_void_p),
        ("rows", c_int64),
        ("vocab", c_int64),
        ("temperature", c_void_p),
        ("top_k", c_void_p),
        ("top_p", c_void_p),
        ("seed", c_void_p),
        ("position", c_void_p),
        ("min_p", c_void_p),
        ("history", c_void_p),
        ("history_slot", c_void_p),
        ("repetition", c_void_p),
        ("presence", c_void_p),
        ("frequency", c_void_p),
        ("bias_tokens", c_void_p),
        ("bias_values", c_void_p),
        ("bias_count", c_int64),
        ("mask", c_void_p),
        ("mask_stride", c_int64),
        ("tokens", c_void_p),
    )


CALLS = {
    "banyan_version": ([], c_int),
    "banyan_use": ([c_char_p], c_int),
    "banyan_variant": ([], c_char_p),
    "banyan_panel": ([], c_int),
    "banyan_linear": ([POINTER(LinearCall), c_int], None),
    "banyan_pack": ([c_int, c_void_p, c_int64, c_int64, c_int, c_void_p], None),
    "banyan_embedding": ([POINTER(LinearCall), c_void_p, c_int64, c_void_p], None),
    "banyan_rows_finite": ([POINTER(FiniteCall), c_int], None),
    "banyan_rms_norm": ([POINTER(NormCall), c_int], None),
    "banyan_rotate": ([POINTER(RotateCall), c_int], None),
    "banyan_attention": ([POINTER(AttentionCall), c_int], None),
    "banyan_decode": ([POINTER(DecodeCall), c_int], None),
    "banyan_sample": ([POINTER(SampleCall), c_int], None),
}


@cache
def library() -> ctypes.CDLL | None:
    """The loaded library; None when there is none, when it is of another version, or when ``BANYAN_NATIVE=0``.

    torch is loaded first, so that both find one OpenMP runtime and share its threads.
    """
    if os.environ.get("BANYAN_NATIVE") == "0" or not PATH.exists():
        return None
    found = ctypes.CDLL(str(PATH))
    for name, (arguments, result) in CALLS.items():
        call = getattr(found, name)
        call.argtypes, call.restype = arguments, result
    return found if found.banyan_version() == VERSION else None


def available() -> bool:
    """Whether the library is there."""
    return library() is not None


def computes(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether weights or numbers of this dtype on this device are the library's work."""
    return device.type == "cpu" and dtype in (torch.float32, torch.bfloat16) and available()


def loaded() -> ctypes.CDLL:
    """The library; ``RuntimeError`` when there is none."""
    found = library()
    if found is None:
        raise RuntimeError("the library of CPU kernels is not there")
    return found


def call(name: str, told: Structure) -> None:
    """A call that is spread over torch's number of threads."""
    getattr(loaded(), name)(byref(told), torch.get_num_threads())
