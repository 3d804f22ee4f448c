"""Entry point of ``python -m loadtests``."""

import sys

from loadtests.cli import main
from loadtests.priority import go_first

go_first()
sys.exit(main())
