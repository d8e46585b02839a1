"""TorchServe: archives, its process, and the verb that serves."""
