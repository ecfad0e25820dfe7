"""Token ids as bytes: little-endian uint32 wherever they are sent, three bytes an id wherever they are kept.

No vocabulary comes near 2**24 ids, and of a cached block the token ids are by far the largest part. Packed ids compare
like others: equal bytes, equal ids.
"""

from radix.errors import CacheError

TOKEN_BYTES = 4
"""Of an id that is sent: uint32, little-endian."""

PACKED_BYTES = 3
"""Of an id that is kept: its lower three bytes."""

LARGEST_ID = (1 << 8 * PACKED_BYTES) - 1


def pack(tokens: bytes | bytearray) -> bytearray:
    """uint32 ids, three bytes each. Raises ``CacheError`` for half an id and for one above ``LARGEST_ID``. O(tokens),
    about 6 ns each."""
    if len(tokens) % TOKEN_BYTES:
        raise CacheError(f"token bytes must be a multiple of {TOKEN_BYTES}, got {len(tokens)}")
    if tokens[PACKED_BYTES::TOKEN_BYTES] != bytes(len(tokens) // TOKEN_BYTES):
        raise CacheError(f"token id {_largest(tokens)} is above {LARGEST_ID}, the largest that can be kept")
    packed = bytearray(tokens)
    del packed[PACKED_BYTES::TOKEN_BYTES]
    return packed


def unpack(packed: bytes | bytearray) -> bytes:
    """The uint32 ids again. O(tokens), about 5 ns each."""
    tokens = bytearray(len(packed) // PACKED_BYTES * TOKEN_BYTES)
    for byte in range(PACKED_BYTES):
        tokens[byte::TOKEN_BYTES] = packed[byte::PACKED_BYTES]
    return bytes(tokens)


def _largest(tokens: bytes | bytearray) -> int:
    return max(int.from_bytes(tokens[at : at + TOKEN_BYTES], "little") for at in range(0, len(tokens), TOKEN_BYTES))
