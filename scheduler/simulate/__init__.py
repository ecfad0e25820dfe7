"""The simulator: the engine's own step loop on a virtual clock, with a cost model where the model would run.

Figures are predictions of a cost model: they compare policies with each other, not machines. ``banyan simulate``.
"""
