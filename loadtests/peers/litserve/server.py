"""LitServe with its own dynamic batching; a request may bring several texts."""

import os

import litserve
from classifier import Classifier


class Api(litserve.LitAPI):
    """One worker, requests joined to batches."""

    def setup(self, device: str) -> None:
        """Load the checkpoint."""
        self._classify = Classifier()

    def decode_request(self, request: dict) -> list[str]:
        """Return the texts of one request."""
        return request["texts"]

    def batch(self, inputs: list[list[str]]) -> list[list[str]]:
        """Keep the requests apart; ``predict`` joins them."""
        return inputs

    def predict(self, inputs: list[list[str]]) -> list[list[dict]]:
        """Classify the texts of all requests at once, and share the answers out."""
        answers = iter(self._classify([text for texts in inputs for text in texts]))
        return [[next(answers) for _ in texts] for texts in inputs]

    def unbatch(self, output: list[list[dict]]) -> list[list[dict]]:
        """Return one answer for each request."""
        return output

    def encode_response(self, output: list[dict]) -> list[dict]:
        """Return the answer as it is."""
        return output


def main() -> None:
    """Serve the checkpoint."""
    api = Api(max_batch_size=32, batch_timeout=0.005, api_path="/classify")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=60)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PEER_PORT"]),
        num_api_servers=1,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )


if __name__ == "__main__":
    main()
