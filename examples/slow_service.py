"""Waiting: ask a slow service many questions, far more at a time than there are CPUs.

The "service" is a thread of this program that answers on the loopback interface after 20 ms.

    python examples/slow_service.py
"""

from __future__ import annotations

import socketserver
import sys
import threading
import time
from functools import partial
from socket import create_connection

from amorsize import smart_map


class Slow(socketserver.StreamRequestHandler):
    """A handler that answers a number with its square, slowly."""

    def handle(self) -> None:
        """Answer one question."""
        number = int(self.rfile.readline())
        time.sleep(0.02)
        self.wfile.write(b"%d\n" % number**2)


class Service(socketserver.ThreadingTCPServer):
    """A service in which many callers can wait at once."""

    daemon_threads = True
    request_queue_size = 256


def ask(address: tuple[str, int], number: int) -> int:
    """Ask the service for the square of a number."""
    with create_connection(address) as connection:
        connection.sendall(b"%d\n" % number)
        return int(connection.makefile().readline())


def main() -> None:
    """Ask 200 questions, which wait 4 seconds in all."""
    with Service(("127.0.0.1", 0), Slow) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        question = partial(ask, service.server_address)
        # Threads are enough for waiting, and are safe beside the service's own threads.
        squares = smart_map(
            question, range(200), backend="thread", report=lambda r: print(r.explain())
        )
        service.shutdown()
    sys.stdout.write(f"the sum of the squares is {sum(squares):,}\n")


if __name__ == "__main__":
    main()
