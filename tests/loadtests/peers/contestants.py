"""Contestants made of the script beside this file."""

import sys
from pathlib import Path

from loadtests.peers.catalog import Contestant

SCRIPT = Path(__file__).with_name("peer_server.py")


def contestant(name: str, *arguments: str) -> Contestant:
    return Contestant(
        name=name, about=f"{name}, for tests", start=lambda place: (sys.executable, str(SCRIPT), *arguments)
    )
