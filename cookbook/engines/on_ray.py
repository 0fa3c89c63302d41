"""On Ray: `python on_ray.py prompts.jsonl answers`."""

import os
import sys

import ray
from ask import ask, begin, finish

SLOTS = 4  # a little more than the streams that the key may have open at once

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
prompts, folder = begin()
ray.init(num_cpus=SLOTS, include_dashboard=False, _node_ip_address="127.0.0.1")
data = ray.data.from_items(prompts, override_num_blocks=4 * SLOTS)
data.map(lambda prompt: {"id": prompt["id"], "event": ask(prompt, folder)}).materialize()
sys.exit(finish(folder, prompts))
