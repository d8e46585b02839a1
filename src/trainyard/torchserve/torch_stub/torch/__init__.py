"""Stands in for torch where there is none: TorchServe's workers import it to ask whether an answer is a tensor.

Only ``trainyard.torchserve.process`` puts this folder on a path, that of the workers, and only where no real torch can
be found. Nothing else may.
"""


class Tensor:
    """What no answer is."""
