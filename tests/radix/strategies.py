"""Token bytes and block hashes for the tests of the cache."""

from radix.hashing import xxh3


def pack(tokens: list[int]) -> bytes:
    """Little-endian uint32."""
    return b"".join(token.to_bytes(4, "little") for token in tokens)


# Good, and so weak that blocks with other tokens get equal digests all the time.
BLOCK_HASHES = {
    "xxh3": xxh3,
    "two bits": lambda block, seed: xxh3(block, seed) & 3,
    "four bits": lambda block, seed: xxh3(block, seed) & 15,
    "constant": lambda block, seed: 7,
    "first token only": lambda block, seed: block[0],
}
