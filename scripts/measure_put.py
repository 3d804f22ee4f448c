"""Time the dial on a running, idle service: from each ``PUT`` of a level to the first answer by its variant.

sparsedial serve --store FRESH    (in another terminal; a store that has the levels already has nothing to build)
python scripts/measure_put.py [--url http://127.0.0.1:8000] [LEVEL ...]
"""

import argparse
import time

import httpx

from service.admin_client import DEFAULT_URL, AdminClient
from service.running import find_service

LEVELS = (0.05, 0.15, 0.33, 0.47, 0.55)
PAUSE_S = 3.0
WAIT_S = 60.0


def main() -> None:
    """Print one row per level, as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default=DEFAULT_URL)
    parser.add_argument("levels", nargs="*", type=float, default=LEVELS, metavar="LEVEL")
    options = parser.parse_args()
    found = find_service(options.url)
    if found is None:
        raise SystemExit(f"no service of this user runs at {options.url}; start one with 'sparsedial serve'")
    admin = AdminClient(found.url, found.token)
    print("| sparsity | PUT to first answer, s | cut, s | evaluate, s | time, s |\n| --- | --- | --- | --- | --- |")
    for level in options.levels:
        time.sleep(PAUSE_S)
        started = time.perf_counter()
        operation = admin.dial({"sparsity": level}, WAIT_S)
        answer = httpx.post(found.url, json={"inputs": "What a lovely surprise."}, timeout=WAIT_S)
        seconds = time.perf_counter() - started
        if answer.headers["x-variant"] != operation["variant"]:
            raise SystemExit(f"the first answer was not by {operation['variant']}: {dict(answer.headers)}")
        steps = _build_seconds(found.url, found.token, operation["variant"])
        print(
            f"| {level:g} | {seconds:.2f} | {steps['cut']:.2f} | {steps['evaluate']:.2f} | {steps['time']:.2f} |",
            flush=True,
        )


def _build_seconds(url: str, token: str, variant: str) -> dict[str, float]:
    """Return the seconds of each step of a variant's build, from its manifest."""
    answer = httpx.get(f"{url}/admin/variants", headers={"authorization": f"Bearer {token}"}, timeout=WAIT_S)
    [manifest] = [each for each in answer.json()["variants"] if each["variant_id"] == variant]
    seconds: dict[str, float] = manifest["build_seconds"]
    return seconds


if __name__ == "__main__":
    main()
