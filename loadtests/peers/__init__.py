"""SparseDial beside what users would pick instead: each server in turn, the same checkpoint, texts and loads.

Run ``python -m loadtests.peers --help``. The folders in here are not packages: they hold the other servers, each with
its pinned requirements, and run in environments of their own.
"""
