"""What the engine's nodes compute: pure functions on numpy arrays, apart from reading and writing image files."""
