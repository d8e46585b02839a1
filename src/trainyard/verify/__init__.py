"""Each format of a model made, scored against the model itself, timed, and gated."""
