"""Panoramas as data: requests, plans, patches, shards and the render folder."""
