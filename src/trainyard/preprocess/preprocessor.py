"""The names of ``base``, ``image`` and ``text`` under the one module that they were in."""

from trainyard.preprocess.base import Encoded, Inputs, Item, Preprocessor, encode_all, load_preprocessor
from trainyard.preprocess.image import ImagePreprocessor
from trainyard.preprocess.text import TextPreprocessor, without_surrogates

__all__ = [
    "Encoded",
    "ImagePreprocessor",
    "Inputs",
    "Item",
    "Preprocessor",
    "TextPreprocessor",
    "encode_all",
    "load_preprocessor",
    "without_surrogates",
]
