"""The program: signals are obeyed before anything that takes time is imported."""

from icl_circuits.stopping import obey_signals


def main() -> None:
    """The console script."""
    obey_signals()
    from icl_circuits.cli import main as run

    run()


if __name__ == "__main__":
    main()
