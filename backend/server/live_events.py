"""What ``x.subscribe`` brings: figures of the server, the cache's tree, the batch as lanes. Names and types only."""

from typing import Literal, TypeAlias

import msgspec

Topic: TypeAlias = Literal["stats", "tree", "batch"]
LaneState: TypeAlias = Literal["running", "prefilling", "waiting", "preempted"]


class Pages(msgspec.Struct):
    """KV pages. ``held``: by requests that run; ``cached``: in the tree and held by nobody. ``free``, ``pinned`` and
    ``total`` are of the whole pool, None for who sees one tenant; ``total`` = ``free`` + ``held`` + ``cached``."""

    held: int
    cached: int
    free: int | None
    pinned: int | None
    total: int | None


class TokenClasses(msgspec.Struct):
    """Prompt tokens since start by class. Of those found: ``new`` is 0; of those computed: ``shared`` is 0."""

    system: int
    history: int
    shared: int
    new: int


class Stats(msgspec.Struct, tag="x.stats", tag_field="type"):
    """Figures now. ``of``: one tenant's requests, pages and tokens, or the whole server's.

    ``evictions`` (pages), ``preemptions``: since start. ``step_ms``: of the last step that ran; ``steps_per_s``,
    ``tokens_per_s`` (drawn): since the figures before, None in the first ones. Evictions, preemptions and steps are all
    tenants' work: None for who sees one.
    """

    of: Literal["tenant", "server"]
    running: int
    prefilling: int
    waiting: int
    pages: Pages
    hits: TokenClasses
    misses: TokenClasses
    evictions: int | None
    preemptions: int | None
    step_ms: float | None
    steps_per_s: float | None
    tokens_per_s: float | None


class TreeNode(msgspec.Struct):
    """A run of cached tokens. ``parent``: 0 for none. ``tenant``: None when public. ``pinned``: "", "soft" or "hard".
    ``idle``: releases of others since it was last held. ``preview``: how its text begins, None where the viewer may not
    read it."""

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
    preview: str | None


class Tree(msgspec.Struct, tag="x.tree", tag_field="type"):
    """The cache as the viewer may see it, parents first. ``hidden_pages`` did not fit, ``other_pages`` are others'."""

    nodes: list[TreeNode]
    hidden_pages: int
    other_pages: int


class BatchLane(msgspec.Struct):
    """A request in the engine. ``id``: the response's id when it is the viewer's own, else a name for drawing only.

    ``done`` of ``total`` tokens (prompt and answer so far) are computed; ``limit``: most that it may come to;
    ``chunk``: tokens that the steps in flight compute.
    """

    id: str
    tenant: str
    state: LaneState
    done: int
    total: int
    limit: int
    chunk: int


class Batch(msgspec.Struct, tag="x.batch", tag_field="type"):
    """The viewer's requests, all with the ``admin`` scope; running ones first, in order of arrival."""

    lanes: list[BatchLane]


LiveEvent: TypeAlias = Stats | Tree | Batch
