"""The render job: from requests to patches and panoramas."""
