"""The formats that a model is exported to: how each is made, and what runs it."""
