"""`python -m ncaasd` is `ncaasd`."""

from ncaasd.show.cli import main

if __name__ == "__main__":
    main()
