"""Time the first and the second start of the service on a fresh store, from the command to the first answer.

python scripts/measure_start.py
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

PORT = 8017
LIMIT_S = 900.0


def seconds_to_first_answer(store: Path) -> float:
    """Start the embedded model on ``store``, ask until it answers, stop it; return the seconds that took."""
    command = [str(Path(sys.executable).parent / "sparsedial"), "serve", "--store", str(store), "--port", str(PORT)]
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/",
        data=json.dumps({"inputs": "What a lovely surprise."}).encode(),
        headers={"content-type": "application/json"},
    )
    started = time.perf_counter()
    service = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while time.perf_counter() - started < LIMIT_S:
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    answer.read()
                    return time.perf_counter() - started
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if service.poll() is not None:
                    raise SystemExit(f"the service ended with exit code {service.returncode}") from None
                time.sleep(0.1)
        raise SystemExit(f"no answer within {LIMIT_S:g} s")
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait()


def main() -> None:
    """Print both times."""
    with tempfile.TemporaryDirectory() as folder:
        for which in ("first start", "second start"):
            print(f"{which}: {seconds_to_first_answer(Path(folder)):.1f} s to the first answer", flush=True)


if __name__ == "__main__":
    main()
