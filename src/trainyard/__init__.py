"""Trainyard: from a folder of images or a file of texts to a trained, sealed and measured classifier."""

__version__ = "0.1.0"
