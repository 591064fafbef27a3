"""The command `bench`."""


def main() -> None:
    raise SystemExit("not here yet")
