"""Predictors around models that are made up: see ``support/predictors.py``."""

from predictors import image_predictor, sum_model, text_predictor  # noqa: F401 fixtures
