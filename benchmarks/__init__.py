"""Speed and memory against named peers, measured in one run: `python -m benchmarks --list`.

A benchmark is a module of this folder with

    SUMMARY: what is compared with what, in one line
    BAR: the figure it has to reach
    PACKAGES: what to state the versions of
    ARMS: name -> function(inputs) that does the work in a process of its own and returns an `Observation`
    run(runs) -> BenchmarkResult

Arms take turns (A B A B ...), so that what disturbs the machine disturbs both; figures are medians. Before anything is
timed the outputs are compared with the truth: where that gate is shut there is no speed figure. A peer that needs
other versions than ours lives in an environment of its own, made from `peers/NAME.txt` (`peer_environment.py`).
`results/` holds the last recorded run of each.
"""
