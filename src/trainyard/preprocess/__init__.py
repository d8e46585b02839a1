"""From a raw item to tensors, and from files to raw items. Free of torch."""
