"""Model families: what a checkpoint's config means, which parameters it has, and the forward pass."""
