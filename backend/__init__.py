"""The parts around the core: models, engine process, text, server, commands."""
