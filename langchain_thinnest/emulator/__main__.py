"""Serve thinnest.ai's chat endpoints on loopback, with a demo agent."""

from __future__ import annotations

import threading
from argparse import ArgumentParser
from contextlib import suppress

from langchain_thinnest.emulator.server import DEMO_AGENT_ID, ThinnestEmulator

if __name__ == "__main__":
    parser = ArgumentParser("python -m langchain_thinnest.emulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8765, help="port to listen on; 0: any")
    parser.add_argument("--api-key", default="ak_emulator", help="the key that it takes")
    parser.add_argument("--requests-per-window", type=int, help="default: no limit")
    parser.add_argument("--window-seconds", type=float, default=60.0)
    parser.add_argument("--max-connections", type=int, help="default: no limit")
    options = vars(parser.parse_args())
    emulator = ThinnestEmulator(api_keys=[options.pop("api_key")], **options)
    try:
        with emulator, suppress(KeyboardInterrupt):
            print("The thinnest.ai emulator serves; Ctrl+C ends it. In another terminal:")
            print(f"  export THINNEST_BASE_URL={emulator.base_url}")
            print(f"  export THINNEST_API_KEY={emulator.api_key}")
            print(f"  export THINNEST_AGENT_ID={DEMO_AGENT_ID}", flush=True)
            threading.Event().wait()
    except (OSError, OverflowError) as error:  # taken, not ours, or no port at all
        parser.error(f"cannot listen on {options['host']} port {options['port']}: {error}")
