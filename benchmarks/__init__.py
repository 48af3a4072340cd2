"""Speed and memory beside other ways of doing the same: ratios from interleaved runs in one process.

``python -m benchmarks`` measures and writes ``results/``; ``python -m benchmarks.check`` compares them with
what is to be reached; ``docs/benchmarks.md`` is made of them. A new measure is a new file with a ``run`` and
a line in ``__main__.MEASURES``.
"""
