"""Who runs next. Pure Python; time is an argument, the forward pass is somebody else's."""
