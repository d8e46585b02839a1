"""What the logits of a model mean: the loss, the scores and the answers that are made of them."""
