"""How good a model is: scores, their intervals, and the temperature that makes probabilities honest."""
