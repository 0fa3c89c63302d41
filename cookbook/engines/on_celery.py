"""On Celery: `celery -A on_celery worker`, and `python on_celery.py prompts.jsonl answers`."""

import os
import sys

from ask import ask, begin, finish
from celery import Celery, group
from tqdm import tqdm

redis = os.environ.get("CELERY_BROKER_URL", "redis://127.0.0.1:6379/0")
app = Celery("on_celery", broker=redis, backend=redis)
app.conf.task_acks_late = True  # a killed process's prompt goes back to the queue
app.conf.task_reject_on_worker_lost = True
app.conf.worker_prefetch_multiplier = 1
task = app.task(ask, name="ask")

if __name__ == "__main__":
    prompts, folder = begin()
    asked = group(task.s(prompt, folder) for prompt in prompts).apply_async()
    for result in tqdm(asked.results):
        result.get(propagate=False)
    sys.exit(finish(folder, prompts))
