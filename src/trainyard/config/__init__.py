"""The typed config: what a YAML file may say, how it is read, and what its errors say."""
