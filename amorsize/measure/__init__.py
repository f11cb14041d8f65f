"""What is measured: the machine, the process, the items."""
