"""Entry point of ``python -m loadtests``."""

import sys

from loadtests.cli import main
from loadtests.priority import going_first

with going_first():
    code = main()
sys.exit(code)
