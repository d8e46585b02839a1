"""What serves: bundle, preprocessors, predictor. Importing it needs neither torch nor transformers."""
