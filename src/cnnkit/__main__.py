"""`python -m cnnkit` is the command line."""

from cnnkit.cli.app import main

if __name__ == "__main__":
    main()
