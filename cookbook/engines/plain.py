"""A plain batch, in threads of one process: `python plain.py prompts.jsonl answers`."""

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from ask import ask, begin, finish
from tqdm import tqdm

THREADS = 8  # the streams that the key may have open at once, or a little more

prompts, folder = begin()
with ThreadPoolExecutor(THREADS) as pool:
    try:
        for _ in tqdm(pool.map(partial(ask, folder=folder), prompts), total=len(prompts)):
            pass
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)  # only what is being asked goes on
        raise
sys.exit(finish(folder, prompts))
