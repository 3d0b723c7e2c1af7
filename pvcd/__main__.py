"""`python -m pvcd`: the same as the command `pvcd`."""

from pvcd.daemon.cli import main

if __name__ == "__main__":
    main()
