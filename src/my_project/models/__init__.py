"""Your models: one file each, with the keys that a config may say of it and its network."""
