"""Ask an agent many prompts, and log what became of each: one function for every engine.

An engine calls `ask` for each prompt that `begin` gives, and `finish` at its end;
`python ask.py FOLDER` writes `answered.jsonl` and `failed.jsonl` at any time. The log is a
file of JSON lines for each process that asks, in a folder that all of them see.
"""

import argparse
import fcntl
import functools
import hashlib
import io
import json
import os
import sys
import threading
import time
import uuid
from collections import Counter, defaultdict
from pathlib import Path

from langchain_core.messages import message_to_dict

from langchain_thinnest import ChatThinnest, is_retryable

# What was being asked when its process was killed; if False, only by `--again Killed`.
ASK_KILLED_AGAIN = True


@functools.cache
def model_of(folder):
    """This process's model, by the environment (`THINNEST_...`). Its settings go here."""
    store = os.environ.get("THINNEST_SHARED_LIMITS") or f"sqlite:///{folder}/limits.db"
    return ChatThinnest(shared_limits=store)


def ask(prompt, folder):
    """Ask one prompt unless the log has it; give what became of it."""
    # A wrong setting or folder fails here, before the log has a line of it.
    model, log = model_of(folder), log_of(folder)
    if known := log.claim(prompt):
        return known
    try:
        answer = model.invoke(prompt["prompt"])
    except Exception as error:
        why = {"error": type(error).__name__, "reason": str(error)}
        return log.write(prompt["id"], "failed", **why, is_retryable=is_retryable(error))
    except BaseException:  # Ctrl-C, or the engine stops its worker
        log.write(prompt["id"], "stopped")
        raise
    found = {"text": answer.text, "message": message_to_dict(answer)}
    return log.write(prompt["id"], "answered", **found)


class Log:
    """What is known of a folder's prompts. Who asks holds a lock on its process's file."""

    def __init__(self, folder):
        self.folder = Path(folder, "log")  # made by `begin`; where it is missing, that fails
        self.file, self.threads, self.read_to = None, threading.RLock(), Counter()
        self.counts = defaultdict(Counter)  # of each prompt's events
        self.asking = defaultdict(set)  # files in which a prompt is "asking" and nothing since
        self.error = {}  # the class of a prompt's last error

    def claim(self, prompt):
        """Note that this process asks it, and give None; or else what it is already."""
        with self.threads, Path(self.folder, "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one of all processes looks and notes at a time
            self.read()
            known = self.state(prompt["id"])
            if not known:
                self.write(prompt["id"], "asking", prompt=prompt["prompt"])
        return known

    def write(self, id, event, **more):
        """Append a line. What ended is on the disk when this returns."""
        entry = {"id": id, "event": event, "at": round(time.time(), 3), **more}
        line = json.dumps(entry, default=str).encode() + b"\n"
        with self.threads:
            if self.file is None:
                name = f"{time.time():.0f}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"
                self.file = io.FileIO(self.folder / name, "a")
                fcntl.flock(self.file, fcntl.LOCK_EX)  # which ends with the process
            if self.file.write(line) != len(line):  # one call to the system: lines do not mix
                self.file.close()
                self.file = None  # the next line is not to go on where this one was cut
                raise OSError(f"No room for the log in {self.folder}")
            if event != "asking":
                os.fsync(self.file)
        return event

    def read(self):
        """Take in, and give, what was appended since the last time."""
        entries = []
        for path in sorted(self.folder.glob("*.jsonl")):
            if path.stat().st_size > self.read_to[path]:
                with path.open("rb") as file:
                    file.seek(self.read_to[path])
                    whole, end, _torn = file.read().rpartition(b"\n")
                self.read_to[path] += len(whole + end)
                for line in whole.split(b"\n") if end else ():
                    entries.append(json.loads(line))
                    self.take(path, **entries[-1])
        return entries

    def take(self, path, id, event, error=None, is_retryable=False, **_):
        """Count one line."""
        self.counts[id]["refused" if is_retryable else event] += 1
        self.error[id] = "Killed" if event == "asking" else error or self.error.get(id)
        (self.asking[id].add if event == "asking" else self.asking[id].discard)(path)

    def state(self, id):
        """It is "answered", "failed" for good, "asking" now, or else None: to be asked."""
        if self.counts[id]["answered"]:
            return "answered"
        alive = [is_alive(path) for path in self.asking[id]]
        if any(alive):
            return "asking"
        killed = 0 if ASK_KILLED_AGAIN else len(alive)
        return (
            "failed" if self.counts[id]["failed"] + killed > self.counts[id]["again"] else None
        )


def is_alive(path):
    """Whether the process that writes a file still runs: it has the file locked."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def log_of(folder):
    """This process's log."""
    return LOGS.setdefault(folder, Log(folder))


def forget():
    """A forked process has no part in its parent's file, nor in the lock on it."""
    while LOGS:
        log = LOGS.popitem()[1]
        if log.file:
            log.file.close()


LOGS = {}
os.register_at_fork(after_in_child=forget)


def begin():
    """Read the command line; give the prompts that are still to be asked, and the folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("prompts", help='JSON lines: "text", or {"id": "1", "prompt": "text"}')
    parser.add_argument("folder", help="where the log and the answers are")
    again = "ask again what failed: names of errors, or all"
    parser.add_argument("--again", nargs="+", default=[], metavar="ERROR", help=again)
    given = parser.parse_args()
    prompts, folder = {}, str(Path(given.folder).absolute())
    lines = Path(given.prompts).read_text(encoding="utf-8").split("\n")
    for line in filter(str.strip, lines):
        prompt = identified(json.loads(line))
        if prompts.setdefault(prompt["id"], prompt) != prompt:
            sys.exit(f"Two prompts have the id {prompt['id']!r}.")
    Path(folder, "log").mkdir(parents=True, exist_ok=True)
    log = log_of(folder)
    log.read()
    for key in prompts:
        if log.state(key) == "failed" and {log.error[key], "all"} & {*given.again}:
            log.write(key, "again")
    log.read()
    to_ask = [prompt for key, prompt in prompts.items() if not log.state(key)]
    print(f"{len(prompts)} prompts, {len(to_ask)} of them to ask.", flush=True)
    return to_ask, folder


def identified(prompt):
    """A prompt with an id: its own, or a digest of its text."""
    prompt = {"prompt": prompt} if isinstance(prompt, str) else prompt
    digest = hashlib.sha256(prompt["prompt"].encode()).hexdigest()[:16]
    return {"id": str(prompt.get("id", digest)), "prompt": prompt["prompt"]}


def finish(folder, prompts=()):
    """Write `answered.jsonl`, and `failed.jsonl` with all others; 1 if there are some."""
    log = Log(folder)
    entries = log.read()
    texts = {entry["id"]: entry["prompt"] for entry in entries if "prompt" in entry}
    last = {prompt["id"]: {**prompt, "event": "never asked"} for prompt in prompts}
    # Machines' clocks differ, so an answer counts as the last that is known.
    for entry in sorted(entries, key=lambda e: (e["event"] == "answered", e["at"])):
        if entry["event"] in ("asking", "answered", "failed"):
            last[entry["id"]] = {"prompt": texts[entry["id"]], **entry}
    found = {"answered": [], "failed": []}
    for key, entry in last.items():
        state, asked = log.state(key), log.counts[key]["asking"]
        where = "answered" if state == "answered" else "failed"
        if entry["event"] == "asking" and state != "asking":
            entry["error"] = "Killed"
        found[where].append({**entry, "asked": asked, "next_run_asks": state is None})
    for name, entries in found.items():
        new = Path(folder, f"{name}.new")
        new.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        new.replace(Path(folder, f"{name}.jsonl"))
    print(", ".join(f"{len(entries)} {name}" for name, entries in found.items()), "in", folder)
    return int(bool(found["failed"]))


if __name__ == "__main__":
    sys.exit(finish(sys.argv[1]))
