"""The published criteria side by side on one checkpoint.

request.py   what is compared: scorers, levels, seeds, pattern, recoveries
run.py       the story: for every seed, scorer and level a cut, judged on the evaluation rows
training.py  how cuts are distilled, where they are
work.py      how much of that is left
kept.py      what a mask keeps, and how far two masks overlap
cells.py     one result, and the folder that keeps results so that a run goes on where it stopped
report.py    results -> means over the seeds, spreads, overlaps and kept shares, as plain values
plot.py      the same as a picture
"""
