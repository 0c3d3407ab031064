"""Flags, progress and tables that the commands share."""
