"""Where photographs are found, and how they are fetched."""
