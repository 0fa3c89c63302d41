"""These run by `make test-engines`, in an environment that has the engines."""

import importlib.util

if importlib.util.find_spec("distributed") is None:
    collect_ignore_glob = ["*"]
