"""A server as a contestant may be: answers labels, leaves children behind, ignores SIGTERM, as its arguments say."""

import json
import os
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        texts = json.loads(self.rfile.read(int(self.headers["content-length"])))["texts"]
        label = "bad" if "contrary" in sys.argv else "good"
        body = json.dumps([{"label": label, "score": 1.0} for _ in texts]).encode()
        self.send_response(503 if "refuse" in sys.argv else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    if "break" in sys.argv:
        raise SystemExit("ImportError: no engine in /opt/somewhere/engine.so")
    if "stubborn" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "parent" in sys.argv:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
        print(f"child {child.pid}", flush=True)
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PEER_PORT"])), Handler).serve_forever()


main()
