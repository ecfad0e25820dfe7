"""``banyan simulate``: a workload through the engine's own scheduler on a virtual clock, for one engine or a fleet."""
