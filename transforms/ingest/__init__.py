"""The ingest job: from sources to a training set."""
