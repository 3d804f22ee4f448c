"""Load tests that speak HTTP and nothing else: an open-loop generator, a capacity probe, scenarios and reports.

Run ``python -m loadtests --help``.
"""
