"""The engine process: loop, runner, messages, and the client that talks to it."""
