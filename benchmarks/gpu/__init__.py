"""Proves on a machine with an NVIDIA GPU that upres works there, and how fast: `make gpu`, in at most ten minutes.

    __main__.py ── one process per part ──► versions · pixels · faults · memory · jobs · pipeline · forward · suite
        │             (part.py, right_pixels.py, embedded.py: what they share; worker.py: the faults)
        └── figures.jsonl, log.txt, and a section of benchmarks/RESULTS.md (section.py)

The process that runs the parts uses no GPU itself: a part that hangs in the driver, or whose CUDA context dies, takes
nothing else with it.
"""
