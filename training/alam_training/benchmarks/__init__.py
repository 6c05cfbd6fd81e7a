"""What ``training/benchmark.py`` measures, a module each."""
