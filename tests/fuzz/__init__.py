"""The API against requests that nobody would send: see test_api.py for what is promised of every answer."""
