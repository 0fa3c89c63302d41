"""These tests need the dependency group `pages`: `make test-pages`."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("chainlit") else ["test_*.py"]
