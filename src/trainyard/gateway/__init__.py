"""The gateway before TorchServe: tokens, limits, health."""
