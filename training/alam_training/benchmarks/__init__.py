"""The benchmarks of ``training/benchmark.py``, one module each."""
