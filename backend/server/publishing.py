"""Has the registered system prompts shared between all tenants and kept in the cache. Knows no socket and no route."""

import asyncio
from array import array

from backend.engine.client import EngineClient
from backend.errors import BanyanError, EngineError
from backend.server.service import ChatService


async def publish_prompts(service: ChatService) -> list[str]:
    """Publish every prompt of the registry, softly pinned, and unpinned where that cannot be.

    Returns when the engine knows them all, not when it has computed them: a warning for each that is not kept or not
    shared. A prompt of less than a page is passed over. Raises nothing when the engine dies: others notice that.
    """
    warnings, wanted = [], []
    for prompt in service.prompts.listed("local"):
        try:
            ids = service.model.encoder.system_prefix(prompt.text)
        except BanyanError as error:
            warnings.append(f"the system prompt {prompt.id!r} is not shared: {error.message}")
            continue
        if len(ids) >= service.engine.info.page_size:
            wanted.append((prompt.id, ids))
    # All at once, in the registry's order: none waits for an answer, so no request comes between.
    answers = await asyncio.gather(*(_publish(service.engine, name, ids) for name, ids in wanted))
    return [*warnings, *filter(None, answers)]


async def _publish(engine: EngineClient, name: str, ids: "array[int]") -> str:
    """The warning, or an empty string."""
    try:
        await engine.publish_prompt(name, ids.tobytes(), pin="soft")
        return ""
    except EngineError as error:
        why, verdict = error.message, "may be evicted"
    try:
        await engine.publish_prompt(name, ids.tobytes(), pin="")
    except EngineError as error:
        why, verdict = error.message, "is not shared"
    return f"the system prompt {name!r} {verdict}: {why}" if engine.alive else ""
