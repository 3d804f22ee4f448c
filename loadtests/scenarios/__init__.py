"""The runs that ``python -m loadtests`` offers, one file each."""
