"""Trainyard: from a folder of images or a file of texts to a trained, sealed and measured classifier."""

from trainyard.base.version import VERSION as __version__

__all__ = ["__version__"]
