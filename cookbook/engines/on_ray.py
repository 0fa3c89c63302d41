"""On Ray: `python on_ray.py prompts.jsonl answers`."""

import os
import sys

from ask import ask, begin, finish

SLOTS = 4  # as many as the streams that the key may have open at once, or a little more
LOCAL = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

if __name__ == "__main__":
    prompts, folder = begin()
    os.environ.update(LOCAL)  # no reports, and loopback only; it is read when Ray is imported
    import ray

    def ask_one(prompt):
        return {"id": prompt["id"], "event": ask(prompt, folder)}

    ray.init(num_cpus=SLOTS, include_dashboard=False)
    data = ray.data.from_items(prompts, override_num_blocks=len(prompts) // 5 + 1)
    data.map(ask_one).materialize()  # a task is a block: about five prompts
    sys.exit(finish(folder, prompts))
