from stores import gs, s3  # noqa: F401 - fixtures
