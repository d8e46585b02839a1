"""Serving with TorchServe, and its client. What runs there needs neither torch nor transformers."""
