"""The tree as data for people: bounded, and without anything of other tenants. Changes nothing.

What is shown first is what lives: the nodes that leases hold, pins, then the leaves that would be evicted last, each
with all of its ancestors. What does not fit is counted.
"""

from collections.abc import Iterable, Iterator

import msgspec

from radix.packing import PACKED_BYTES, unpack
from radix.tree import Node

PREVIEW_TOKENS = 24
"""Token ids at the beginning of a node that its owner may see, enough to recognize a prompt."""


class NodeView(msgspec.Struct, frozen=True, gc=False):
    """One node. ``parent``: its ``id``, 0 for none. ``tenant``: None when public. ``pinned``: "", "soft" or "hard".
    ``depth_tokens``: tokens before it. ``idle``: how many leases were released since it was last held; 0 while held.
    ``preview``: first token ids (little-endian uint32), only of public nodes and the viewer's own. Who sees only one
    tenant is not told how others use what is public: there ``locks``, ``hits`` and ``idle`` are 0."""

    id: int
    parent: int
    tenant: str | None
    tokens: int
    pages: int
    depth_tokens: int
    locks: int
    pinned: str
    hits: int
    idle: int
    preview: bytes


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """``nodes``: parents before their children. ``hidden_pages``: of nodes that the viewer could see and that did not
    fit; ``other_pages``: of other tenants, told only to who sees everything."""

    nodes: list[NodeView]
    hidden_pages: int
    other_pages: int


class Viewer(msgspec.Struct, frozen=True):
    """``tenant``: sees public nodes and its own. ``everything``: sees all nodes, but still no other tenant's tokens."""

    tenant: str
    everything: bool = False


def take_snapshot(
    candidates: Iterable[Node],
    viewer: Viewer,
    limit: int,
    now: int,
    page_size: int,
    public: str,
    pinned: dict[int, str],
    visible_pages: int,
    other_pages: int,
) -> Snapshot:
    """``candidates``: nodes in the order of interest; looks at no more than ``8 * limit`` of them. O(limit * depth)."""
    chosen: dict[int, Node] = {}
    for _, node in zip(range(8 * limit), candidates, strict=False):
        if len(chosen) >= limit:
            break
        if not viewer.everything and node.account.name not in (viewer.tenant, public):
            continue
        path = [step for step in _path(node) if step.serial not in chosen]
        if len(chosen) + len(path) <= limit:
            chosen |= {step.serial: step for step in reversed(path)}
    shown = sum(len(node.pages) for node in chosen.values())
    views = [_view(node, viewer, now, page_size, public, pinned.get(node.serial, "")) for node in chosen.values()]
    return Snapshot(views, max(visible_pages - shown, 0), other_pages)


def _path(node: Node) -> Iterator[Node]:
    step: Node | None = node
    while step is not None and step.parent is not None:
        yield step
        step = step.parent


def _view(node: Node, viewer: Viewer, now: int, page_size: int, public: str, pinned: str) -> NodeView:
    parent = node.parent
    name = node.account.name
    own = name in (viewer.tenant, public)
    told = viewer.everything or name == viewer.tenant
    return NodeView(
        id=node.serial,
        parent=parent.serial if parent is not None and parent.parent is not None else 0,
        tenant=None if name == public else name,
        tokens=len(node.packed) // PACKED_BYTES,
        pages=len(node.pages),
        depth_tokens=node.depth * page_size,
        locks=node.locks if told else 0,
        pinned=pinned,
        hits=node.hits if told else 0,
        idle=max(now - node.last_use, 0) if told and not node.locks else 0,
        preview=unpack(node.packed[: PREVIEW_TOKENS * PACKED_BYTES]) if own else b"",
    )
