"""Plain torch: what each operation means. Written to be read; every faster implementation is tested against it."""
