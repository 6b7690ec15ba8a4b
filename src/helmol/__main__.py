"""``python -m helmol`` is the command ``helmol``."""

from helmol.cli.main import main

if __name__ == "__main__":
    main()
