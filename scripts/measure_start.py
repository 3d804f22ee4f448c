"""Time starts of the service, from the command to the first answer, each store a fresh one.

python scripts/measure_start.py          the first and the second start, everything installed
python scripts/measure_start.py clone    ``make serve`` in a new clone of the last commit, the installation included
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


REPOSITORY = Path(__file__).resolve().parent.parent


def seconds_to_first_answer(command: list[str]) -> float:
    """Start a service of the embedded model, ask until it answers, stop it; return the seconds that took."""
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
    """Print the times."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--store", f"{folder}/store", "--port", str(PORT)]
        if sys.argv[1:] == ["clone"]:
            clone = f"{folder}/clone"
            subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), clone], check=True)
            make = ["make", "--directory", clone, "serve", f"ARGS={' '.join(options)}"]
            print(f"make serve in a new clone: {seconds_to_first_answer(make):.1f} s to the first answer")
            return
        serve = [str(Path(sys.executable).parent / "sparsedial"), "serve", *options]
        for which in ("first start", "second start"):
            print(f"{which}: {seconds_to_first_answer(serve):.1f} s to the first answer", flush=True)


if __name__ == "__main__":
    main()
