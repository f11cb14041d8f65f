"""The command line: ``amorsize``, and ``python -m amorsize``."""
