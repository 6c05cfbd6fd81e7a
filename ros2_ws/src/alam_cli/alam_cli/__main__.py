"""``python -m alam_cli`` is the ``alam`` command."""

from alam_cli.main import main

if __name__ == "__main__":
    main()
