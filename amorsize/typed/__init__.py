"""What type checkers see; nothing is loaded from here at run time."""
