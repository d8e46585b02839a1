"""What all models have in common, and the bases of torchvision's and transformers'."""
