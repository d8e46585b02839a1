"""Where records come from, and how a rank reads them."""
