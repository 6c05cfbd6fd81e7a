"""The ``alam`` command."""


def main() -> None:
    print("alam")
