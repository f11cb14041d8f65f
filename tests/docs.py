"""Runs the Python blocks of a document in order, as one program; ``test_docs`` starts it.

    python -m tests.docs FILE

Blocks with a prompt (``>>>``) are checked against the output that they show.
"""

import doctest
import importlib.util
import sys
import unittest
from pathlib import Path

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def lacks(*modules):
    """Return whether any of these modules is not installed; blocks are skipped by this."""
    return any(importlib.util.find_spec(name) is None for name in modules)


def main(path):
    """Run the blocks; the first that fails ends the program."""
    from sybil import Sybil
    from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

    parser = PythonCodeBlockParser(doctest_optionflags=FLAGS)
    document = Sybil(parsers=[parser, SkipParser()]).parse(Path(path))
    # As the user's own program would have it.
    document.namespace = vars(sys.modules["__main__"])
    ran = 0
    for example in document.examples():
        try:
            example.evaluate()
        except unittest.SkipTest as skip:
            print(f"skipped line {example.line}: {skip}")
            continue
        ran += 1
    print(f"ran {ran}")


if __name__ == "__main__":
    main(sys.argv[1])
