"""Whether one who stops reading is felt by others: ``python -m benchmarks.slow_reader``.

Eight streams alone, then eight beside one that asked for the same and reads nothing until they have ended: the gaps
between their frames, and the server's memory (it keeps for a while what the eight got, for who comes back). Then the
slow one reads: it gets all, in fewer and longer deltas.
"""

import argparse
import asyncio
import json
import socket

import uvloop

from benchmarks.sockets import Client, begin_all, open_clients, percentile, resident_bytes, served

_STREAMS = 8
_RECEIVE_BYTES = 4096  # of the slow one's socket, so that it is soon full


async def _slow_client(port: int) -> Client:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", port))
    _, client = await loop.create_connection(Client, sock=sock)
    await client.opened
    return client


async def _gaps_ms(port: int, tokens: int) -> dict[str, float]:
    """Of eight streams that begin now, until they have ended."""
    clients = await open_clients(port, _STREAMS)
    await begin_all(clients, tokens)
    await asyncio.gather(*(client.ended for client in clients))
    assert all(len(client.deltas) == tokens for client in clients), "somebody who reads got merged deltas"
    gaps = [b - a for client in clients for a, b in zip(client.deltas, client.deltas[1:], strict=False)]
    gaps.sort()
    return {f"p{q}": round(1000 * percentile(gaps, q), 2) for q in (50, 99, 99.9)}


async def _measure(rate: float, tokens: int) -> dict[str, object]:
    with served(rate) as (child, port):
        await _gaps_ms(port, tokens // 10)  # to warm up
        start = resident_bytes(child.pid)
        alone = await _gaps_ms(port, tokens)
        before = resident_bytes(child.pid)
        slow = await _slow_client(port)
        assert slow.transport is not None
        await begin_all([slow], tokens)
        slow.transport.pause_reading()
        beside = await _gaps_ms(port, tokens)
        after = resident_bytes(child.pid)
        read_meanwhile = len(slow.deltas)
        slow.transport.resume_reading()
        await slow.ended
        return {
            "gap_ms_alone": alone,
            "gap_ms_beside_the_slow_one": beside,
            "server_grew_kib": {"alone": (before - start) // 1024, "beside": (after - before) // 1024},
            "slow_one": {"tokens": tokens, "deltas_while_slow": read_meanwhile, "deltas": len(slow.deltas)},
        }


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=500.0, help="tokens a second of each (default: 500)")
    parser.add_argument("--tokens", type=int, default=8000, help="length of the answers (default: 8,000)")
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(_measure(arguments.rate, arguments.tokens))))


if __name__ == "__main__":
    main()
