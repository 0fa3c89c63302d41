"""How long hypothesis looks: `--hypothesis-profile` chooses."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None)  # the machine may be busy
settings.register_profile("fuzz", deadline=None, max_examples=20_000)
settings.register_profile(
    "mutants",
    deadline=None,
    max_examples=30,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("default")
