"""On Dask: `python on_dask.py prompts.jsonl answers`."""

import sys

import dask
from ask import ask, begin, finish
from dask.distributed import Client, LocalCluster, progress

WORKERS, THREADS = 2, 4  # together the streams that the key may have open, or more

if __name__ == "__main__":  # Dask's workers import this file
    prompts, folder = begin()
    dask.config.set({"distributed.scheduler.allowed-failures": 10})  # a lost prompt's tries
    cluster = LocalCluster(
        n_workers=WORKERS, threads_per_worker=THREADS, host="127.0.0.1", dashboard_address=None
    )
    with cluster, Client(cluster) as client:  # elsewhere: client.upload_file("ask.py")
        asked = client.map(ask, prompts, folder=folder, pure=False)
        progress(asked, notebook=False)
        client.gather(asked)
    sys.exit(finish(folder, prompts))
