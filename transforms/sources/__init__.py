"""Finding photographs and fetching them."""
