"""Entry point of ``python -m loadtests.peers``."""

import sys

from loadtests.peers.cli import main

sys.exit(main())
