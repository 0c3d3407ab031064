"""What the commands share on a terminal: flags, progress and tables."""
