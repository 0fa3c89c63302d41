"""On Spark: `python on_spark.py prompts.jsonl answers`."""

import os
import sys
from pathlib import Path

import pandas as pd
from ask import ask, begin, finish
from pyspark.sql import SparkSession

SLOTS = 4  # as many as the streams that the key may have open at once, or a little more

if __name__ == "__main__":
    prompts, folder = begin()
    os.environ.update(PYSPARK_PYTHON=sys.executable, SPARK_LOCAL_IP="127.0.0.1")
    shown = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "true"}
    builder = SparkSession.builder.master(f"local[{SLOTS},10]")  # a lost task has ten tries
    spark = builder.config(map=shown).getOrCreate()
    spark.sparkContext.addPyFile(str(Path(__file__).with_name("ask.py")))

    def ask_all(frames):
        for frame in frames:
            rows = [(prompt["id"], ask(prompt, folder)) for prompt in frame.to_dict("records")]
            yield pd.DataFrame(rows, columns=["id", "event"])

    if prompts:
        data = spark.createDataFrame(prompts).repartition(len(prompts) // 5 + 1)
        data.mapInPandas(ask_all, "id string, event string").collect()
    spark.stop()
    sys.exit(finish(folder, prompts))
