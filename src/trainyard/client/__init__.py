"""The client of a server, and who may ask it."""
